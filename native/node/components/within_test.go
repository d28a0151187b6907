package components

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/transport"
)

// within undoes at the end of a test what Within did.
func within(t *testing.T) {
	t.Helper()
	outside, ofEtcd := transport.DialContext, factory.DialContext
	Within()
	t.Cleanup(func() {
		transport.DialContext, factory.DialContext = outside, ofEtcd
		apiAddress.Store(nil)
		ofAPI.Store(nil)
		ofDatastore.Store(nil)
	})
}

// Nobody listens at the address that the client knows: it is answered inside.
func TestClientsMeetTheServerInside(t *testing.T) {
	within(t)
	nobody := "127.0.0.1:1"
	apiAddress.Store(&nobody)
	listener, err := ListenOn([]net.Listener{listenInside(&ofAPI)}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, asked *http.Request) {
		_, _ = io.WriteString(answer, asked.RemoteAddr)
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	ask := func(address string) (string, error) {
		trip, err := transport.New(&transport.Config{TLS: transport.TLSConfig{Insecure: true}})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: trip}).Get("http://" + address)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		said, err := io.ReadAll(answer.Body)
		return string(said), err
	}
	if said, err := ask(nobody); said != "127.0.0.1:0" || err != nil {
		t.Errorf("inside: %q, %v", said, err)
	}
	if said, err := ask(listener.Addr().String()); said == "127.0.0.1:0" || err != nil {
		t.Errorf("another address is another server's: %q, %v", said, err)
	}
	if _, err := ask("127.0.0.1:2"); err == nil {
		t.Error("nobody answers there")
	}
}

// The API server's way to the datastore takes no socket where there is one inside, and the socket where there is not.
func TestTheDatastoreIsMetInside(t *testing.T) {
	within(t)
	folder := t.TempDir()
	socket := filepath.Join(folder, "s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server, err := Kine(ctx, filepath.Join(folder, "db"), "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) error {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{"unix://" + socket},
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(factory.DialContext)},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		absent := clientv3.Compare(clientv3.ModRevision(key), "=", 0)
		_, err = client.Txn(ctx).If(absent).Then(clientv3.OpPut(key, "value")).Commit()
		return err
	}
	if err := put("/by/socket"); err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listenInside(&ofDatastore)) }()
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	if err := put("/inside"); err != nil {
		t.Fatal(err)
	}
}
