package services

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// Linux answers for all of 127.0.0.0/8, so the tests use addresses from it as
// service and endpoint addresses and add none.
type noAddresses struct{}

func (noAddresses) Add(netip.Addr) error    { return nil }
func (noAddresses) Remove(netip.Addr) error { return nil }

const serviceAddress = "127.96.0.7"

type fixture struct {
	t      *testing.T
	client *fake.Clientset
	folder string
	stop   func()
}

// start runs a proxy against a fake API; the test's end waits for all of its
// goroutines.
func start(t *testing.T, edits ...func(*proxy)) *fixture {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fixture{t: t, client: fake.NewClientset(), folder: t.TempDir()}
	table := newTable(noAddresses{}, everybody)
	table.flows = newFlows(maxFlows, 300*time.Millisecond)
	ready := make(chan struct{})
	p := &proxy{
		table:          table,
		translate:      func([]Translation) {},
		hostPortFolder: f.folder,
		node:           Node{Name: "runsc", Addresses: []netip.Addr{netip.MustParseAddr("127.88.0.1")}},
		ready:          func() { close(ready) },
	}
	for _, edit := range edits {
		edit(p)
	}
	p.checks = newChecks(p.node)
	done := make(chan error, 1)
	go func() { done <- p.run(ctx, f.client) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	<-ready
	return f
}

func (f *fixture) createService(service *v1.Service) {
	f.t.Helper()
	if _, err := f.client.CoreV1().Services("default").Create(f.t.Context(), service, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) createSlice(slice *discovery.EndpointSlice) {
	f.t.Helper()
	if _, err := f.client.DiscoveryV1().EndpointSlices("default").Create(f.t.Context(), slice, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) updateSlice(slice *discovery.EndpointSlice) {
	f.t.Helper()
	if _, err := f.client.DiscoveryV1().EndpointSlices("default").Update(f.t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

// serveTCP accepts on address:8080 until the test ends.
func serveTCP(t *testing.T, address string, handle func(*net.TCPConn)) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				handle(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { listener.Close(); open.Wait() })
}

func sayName(name string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) { fmt.Fprint(conn, name) }
}

// serveUDP answers each packet to address:8080 with name and the packet.
func serveUDP(t *testing.T, address, name string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(address, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		buffer := make([]byte, maxPacket)
		for {
			n, peer, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(append([]byte(name+":"), buffer[:n]...), peer)
		}
	})
	t.Cleanup(func() { conn.Close(); open.Wait() })
}

// eventually waits for a state that the proxy reaches after an API event.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !reached() {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// connected is a connection to the Service, closed at the test's end.
func connected(t *testing.T) net.Conn {
	t.Helper()
	var conn net.Conn
	eventually(t, "connected", func() bool {
		var err error
		conn, err = net.Dial("tcp4", serviceAddress+":80")
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends nothing and reads until the end.
func ask(address string) (string, error) {
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	data, err := io.ReadAll(conn)
	return string(data), err
}

func askFor(t *testing.T, address, want string) {
	t.Helper()
	eventually(t, address+" answers "+want, func() bool {
		got, err := ask(address)
		return err == nil && got == want
	})
}

func everybody(netip.Addr, netip.AddrPort, v1.Protocol) bool { return true }
