package services

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

func udpService(s *v1.ServiceSpec) { s.Ports[0].Protocol = v1.ProtocolUDP }

// askUDP sends until an answer comes: packets sent before the proxy listens are lost.
func askUDP(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	buffer := make([]byte, maxPacket)
	var answer string
	eventually(t, "answer to "+text, func() bool {
		if _, err := conn.Write([]byte(text)); err != nil {
			return false
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			n, err := conn.Read(buffer)
			answer = string(buffer[:n])
			if err != nil || strings.HasSuffix(answer, ":"+text) { // others are to a packet that was sent again
				return err == nil
			}
		}
	})
	return answer
}

// firstOfTwo is a connected socket whose Service has the first of two endpoints, "one" and "two".
func firstOfTwo(t *testing.T, f *fixture) (net.Conn, *discovery.EndpointSlice) {
	t.Helper()
	serveUDP(t, "127.1.0.1", "one")
	serveUDP(t, "127.1.0.2", "two")
	f.createService(testService(serviceAddress, udpService))
	slice := testSlice(v1.ProtocolUDP, 8080, endpoint("127.1.0.1"))
	f.createSlice(slice)
	conn, err := net.Dial("udp4", serviceAddress+":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, slice
}

// A connected socket takes answers from the service's address only.
func TestUDPFlows(t *testing.T) {
	f := start(t)
	conn, slice := firstOfTwo(t, f)
	if got := askUDP(t, conn, "a"); got != "one:a" {
		t.Errorf("got %q", got)
	}
	big := strings.Repeat("x", 40000)
	if got := askUDP(t, conn, big); got != "one:"+big {
		t.Errorf("got %d bytes", len(got))
	}
	slice = slice.DeepCopy()
	slice.Endpoints = []discovery.Endpoint{endpoint("127.1.0.2")}
	f.updateSlice(slice)
	eventually(t, "flow moved to the new endpoint", func() bool { return askUDP(t, conn, "b") == "two:b" })
	// Longer than the idle time: the flow has ended and another one serves.
	time.Sleep(500 * time.Millisecond)
	if got := askUDP(t, conn, "c"); got != "two:c" {
		t.Errorf("got %q", got)
	}
}

func TestUDPManyClients(t *testing.T) {
	f := start(t)
	serveUDP(t, "127.1.0.1", "one")
	f.createService(testService(serviceAddress, udpService))
	f.createSlice(testSlice(v1.ProtocolUDP, 8080, endpoint("127.1.0.1")))
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			conn, err := net.Dial("udp4", serviceAddress+":80")
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for j := range 20 {
				text := fmt.Sprintf("%d-%d", i, j)
				if got := askUDP(t, conn, text); got != "one:"+text {
					t.Errorf("got %q, want one:%s", got, text)
				}
			}
		})
	}
	clients.Wait()
}
