package services

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// blackHole listens on address:8080 and lets nobody in: its queue is full, and packets of more are dropped.
func blackHole(t *testing.T, address string) {
	t.Helper()
	descriptor, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(descriptor) })
	if err := unix.Bind(descriptor, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte(net.ParseIP(address).To4())}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(descriptor, 0); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.DialTimeout("tcp4", address+":8080", 100*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
	}
}

func impatient(t *testing.T, all, least time.Duration) {
	before, beforeLeast := dialTimeout, leastTry
	dialTimeout, leastTry = all, least
	t.Cleanup(func() { dialTimeout, leastTry = before, beforeLeast })
}

// TestStaleEndpoints: five that swallow packets hold a connection for as long as one does.
func TestStaleEndpoints(t *testing.T) {
	impatient(t, 400*time.Millisecond, 10*time.Millisecond)
	f := start(t)
	var endpoints []discovery.Endpoint
	for _, address := range []string{"127.1.1.1", "127.1.1.2", "127.1.1.3", "127.1.1.4", "127.1.1.5"} {
		blackHole(t, address)
		endpoints = append(endpoints, endpoint(address))
	}
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoints...))
	conn := connected(t)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	began := time.Now()
	_, err := conn.Read(make([]byte, 1))
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Fatal("the connection is held on to")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("given up after %s", took)
	}
}

// One endpoint that answers is found within the time, whatever the others do.
func TestStaleEndpointsLeaveTimeForOthers(t *testing.T) {
	impatient(t, 3*time.Second, 10*time.Millisecond)
	f := start(t)
	blackHole(t, "127.1.1.1")
	blackHole(t, "127.1.1.2")
	serveTCP(t, "127.1.1.3", sayName("three"))
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.1.1"), endpoint("127.1.1.2"), endpoint("127.1.1.3")))
	for range 3 {
		askFor(t, serviceAddress+":80", "three")
	}
}

// TestClientThatLeft: its connection is given up although its endpoint may still answer; one that only has no more to say
// is waited for.
func TestClientThatLeft(t *testing.T) {
	impatient(t, time.Minute, time.Minute)
	var taken *places
	f := start(t, func(p *proxy) { taken = p.table.places })
	blackHole(t, "127.1.1.1")
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.1.1")))
	open := func() int {
		taken.mu.Lock()
		defer taken.mu.Unlock()
		return taken.taken
	}
	var conn *net.TCPConn
	eventually(t, "connected", func() bool {
		some, err := net.Dial("tcp4", serviceAddress+":80")
		if err == nil {
			conn = some.(*net.TCPConn)
		}
		return err == nil
	})
	eventually(t, "taken", func() bool { return open() == 1 })
	if _, err := conn.Write([]byte("a question")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * lookAfter) // longer than it takes to look
	if open() != 1 {
		t.Fatal("a client that waits for an answer was taken for gone")
	}
	abort(conn)
	eventually(t, "given up", func() bool { return open() == 0 })
}
