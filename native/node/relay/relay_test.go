package relay

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is the other side: what sandkube/cluster/relay.py does.
type host struct {
	t       *testing.T
	control int
	ended   chan error
}

func start(t *testing.T) *host {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, control: pair[0], ended: make(chan error, 1)}
	go func() { h.ended <- Run(context.Background(), os.NewFile(uintptr(pair[1]), "control")) }()
	return h
}

func (h *host) open(kind int, asked request) *net.UnixConn {
	h.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	data, _ := json.Marshal(asked)
	if err := unix.Sendmsg(h.control, data, unix.UnixRights(pair[1]), nil, 0); err != nil {
		h.t.Fatal(err)
	}
	unix.Close(pair[1])
	file := os.NewFile(uintptr(pair[0]), "host")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.UnixConn)
}

func (h *host) end() {
	h.t.Helper()
	unix.Close(h.control)
	if err := <-h.ended; err != nil {
		h.t.Error(err)
	}
}

// TestStream: all bytes come, and the end of one direction does not end the other.
func TestStream(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		said, _ := io.ReadAll(conn)
		_, _ = conn.Write(append(said, " to you"...))
	}()
	h := start(t)
	stream := h.open(unix.SOCK_STREAM, request{"tcp", listener.Addr().String()})
	first := make([]byte, 1)
	if _, err := stream.Read(first); err != nil || first[0] != joined {
		t.Fatal(first, err)
	}
	_, _ = stream.Write([]byte("good day"))
	_ = stream.CloseWrite()
	if said, err := io.ReadAll(stream); err != nil || string(said) != "good day to you" {
		t.Error(string(said), err)
	}
	h.end()
}

func TestNobodyAnswers(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	h := start(t)
	stream := h.open(unix.SOCK_STREAM, request{"tcp", listener.Addr().String()})
	if said, err := io.ReadAll(stream); err != nil || len(said) != 0 {
		t.Error(said, err)
	}
	h.end()
}

// TestPackets: boundaries are kept, an empty packet is one, and none is too large.
func TestPackets(t *testing.T) {
	echo, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		buffer := make([]byte, maxPacket)
		for {
			length, from, err := echo.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buffer[:length], from)
		}
	}()
	h := start(t)
	stream := h.open(unix.SOCK_SEQPACKET, request{"udp", echo.LocalAddr().String()})
	buffer := make([]byte, 1+maxPacket)
	for _, size := range []int{1, 0, 65507, 3} {
		if _, err := stream.Write(make([]byte, 1+size)); err != nil {
			t.Fatal(err)
		}
		if length, err := stream.Read(buffer); err != nil || length != 1+size {
			t.Fatalf("%d bytes for %d: %v", length, 1+size, err)
		}
	}
	h.end()
}

func TestNoSocket(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), file); err == nil {
		t.Error("it ran")
	}
}
