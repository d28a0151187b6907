package services

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

func TestEndpointsInTurn(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", sayName("one"))
	serveTCP(t, "127.1.0.2", sayName("two"))
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1"), endpoint("127.1.0.2")))
	eventually(t, "service answers", func() bool { _, err := ask(serviceAddress + ":80"); return err == nil })
	count := map[string]int{}
	for range 10 {
		name, err := ask(serviceAddress + ":80")
		if err != nil {
			t.Fatal(err)
		}
		count[name]++
	}
	if count["one"] != 5 || count["two"] != 5 {
		t.Errorf("answers %v, want five of each", count)
	}
}

func TestRefusedEndpointIsPassedOver(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.2", sayName("two"))
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1"), endpoint("127.1.0.2")))
	askFor(t, serviceAddress+":80", "two")
	for range 4 {
		if name, err := ask(serviceAddress + ":80"); err != nil || name != "two" {
			t.Errorf("got %q, %v", name, err)
		}
	}
}

func TestAffinity(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", sayName("one"))
	serveTCP(t, "127.1.0.2", sayName("two"))
	f.createService(testService(serviceAddress, func(s *v1.ServiceSpec) { s.SessionAffinity = v1.ServiceAffinityClientIP }))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1"), endpoint("127.1.0.2")))
	var first string
	eventually(t, "service answers", func() bool {
		var err error
		first, err = ask(serviceAddress + ":80")
		return err == nil
	})
	for range 5 {
		if name, err := ask(serviceAddress + ":80"); err != nil || name != first {
			t.Fatalf("got %q, %v after %q", name, err, first)
		}
	}
}

func TestNoEndpointsRefuses(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", sayName("one"))
	f.createService(testService(serviceAddress))
	slice := testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1"))
	f.createSlice(slice)
	askFor(t, serviceAddress+":80", "one")
	slice = slice.DeepCopy()
	slice.Endpoints = nil
	f.updateSlice(slice)
	eventually(t, "refused", func() bool {
		_, err := ask(serviceAddress + ":80")
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// TestHalfClose sends 1 MB, closes the sending side and reads the answer that
// the server starts only then.
func TestHalfClose(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", func(conn *net.TCPConn) {
		data, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "%d bytes", len(data))
	})
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1")))
	eventually(t, "half-closed exchange", func() bool {
		conn, err := net.Dial("tcp4", serviceAddress+":80")
		if err != nil {
			return false
		}
		defer conn.Close()
		if _, err := io.Copy(conn, strings.NewReader(strings.Repeat("x", 1<<20))); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || string(answer) != "1048576 bytes" {
			t.Fatalf("answer %q, %v", answer, err)
		}
		return true
	})
}

func TestResetIsPassedOn(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", func(conn *net.TCPConn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.SetLinger(0)
	})
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1")))
	conn := connected(t)
	fmt.Fprint(conn, "x")
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
}

// TestConnectionsSurviveChanges keeps one connection through the arrival and
// the loss of endpoints, its own included.
func TestConnectionsSurviveChanges(t *testing.T) {
	f := start(t)
	echo := func(conn *net.TCPConn) { _, _ = io.Copy(conn, conn) }
	serveTCP(t, "127.1.0.1", echo)
	serveTCP(t, "127.1.0.2", sayName("two"))
	f.createService(testService(serviceAddress))
	slice := testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1"))
	f.createSlice(slice)
	conn := connected(t)
	exchange := func() {
		t.Helper()
		fmt.Fprint(conn, "x")
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	slice = slice.DeepCopy()
	slice.Endpoints = []discovery.Endpoint{endpoint("127.1.0.2")}
	f.updateSlice(slice)
	askFor(t, serviceAddress+":80", "two")
	exchange()
	slice = slice.DeepCopy()
	slice.Endpoints = nil
	f.updateSlice(slice)
	eventually(t, "refused", func() bool { _, err := ask(serviceAddress + ":80"); return err != nil })
	exchange()
}

func TestManyConnectionsLeakNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	f := start(t)
	t.Run("load", func(t *testing.T) {
		serveTCP(t, "127.1.0.1", func(conn *net.TCPConn) { _, _ = io.Copy(conn, conn) })
		f.createService(testService(serviceAddress))
		f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1")))
		eventually(t, "connected", func() bool {
			conn, err := net.Dial("tcp4", serviceAddress+":80")
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		var clients sync.WaitGroup
		for i := range 200 {
			clients.Go(func() {
				conn, err := net.Dial("tcp4", serviceAddress+":80")
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				want := fmt.Sprintf("client %d", i)
				fmt.Fprint(conn, want)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		clients.Wait()
	})
	f.stop()
	eventually(t, "no goroutine left", func() bool { return runtime.NumGoroutine() <= before })
}

func TestNodePortAndHostPort(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", sayName("one"))
	f.createService(testService(serviceAddress, func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1")))
	askFor(t, "127.88.0.1:30080", "one")
	path := filepath.Join(f.folder, "pod-eth0.json")
	content := `{"containerID":"pod","address":"127.1.0.1","mappings":[{"hostPort":30081,"containerPort":8080,"protocol":"tcp"}]}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	askFor(t, "127.88.0.1:30081", "one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "host port closed", func() bool {
		_, err := ask("127.88.0.1:30081")
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// TestPortInUse: the one port is served as soon as its holder lets go, and
// others are served meanwhile.
func TestPortInUse(t *testing.T) {
	f := start(t)
	serveTCP(t, "127.1.0.1", sayName("one"))
	holder, err := net.Listen("tcp4", serviceAddress+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	f.createService(testService(serviceAddress, func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1")))
	askFor(t, "127.88.0.1:30080", "one")
	holder.Close()
	askFor(t, serviceAddress+":80", "one")
}
