package components

import (
	"errors"
	"io"
	"net"
	"testing"
)

func TestListenersAreOne(t *testing.T) {
	other, err := net.Listen("tcp4", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	joined, err := ListenOn([]net.Listener{other}, "127.0.0.1:0", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	all := joined.(*listeners).all
	if got := joined.Addr().String(); got != all[0].Addr().String() {
		t.Errorf("address %s, wanted %s", got, all[0].Addr())
	}
	for _, one := range all {
		client, err := net.Dial("tcp", one.Addr().String()) // before anybody accepts
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(client, "asked"); _ = client.Close() }()
		server, err := joined.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(server); string(got) != "asked" {
			t.Errorf("read %q, %v", got, err)
		}
		_ = server.Close()
	}
	if err := joined.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := joined.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting from a closed one: %v", err)
	}
	for _, one := range all {
		if client, err := net.Dial("tcp", one.Addr().String()); err == nil {
			t.Errorf("%s is served still", one.Addr())
			_ = client.Close()
		}
	}
}

func TestListenersAreAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := ListenOn(nil, "127.0.0.2:0", taken.Addr().String()); err == nil {
		t.Error("a taken port was given out")
	}
}
