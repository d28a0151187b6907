// Package relay joins streams that the host hands in with addresses in the node's network: so ports of the host lead to
// Services and to ports of the node, in a sandbox that has no network to the outside (sandkube/cluster/relay.py).
package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Role is the word that the program is started with.
const Role = "relay"

const (
	dialTimeout = 10 * time.Second
	maxPacket   = 64 << 10
	block       = 64 << 10
	joined      = 1 // the byte that tells the host of a stream that it is joined
)

// request comes with the descriptor of one end of a socket pair.
type request struct {
	Network string `json:"network"` // tcp: a pair of streams; udp: of packets, each after a byte that means nothing
	Address string `json:"address"`
}

// Run serves requests that come by a socket of packets, until its other end is closed or ctx ends. Each stream then ends by
// itself, or with the process.
func Run(ctx context.Context, control *os.File) error {
	requests, err := hostOf(control)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = requests.Close() })()
	return receive(requests, 4096, func(data []byte, stream *net.UnixConn) error {
		var asked request
		if err := json.Unmarshal(data, &asked); err != nil {
			return fmt.Errorf("a request: %w", err)
		}
		go serve(ctx, asked, stream)
		return nil
	})
}

// hostOf is the socket of packets to the host that a process was given.
func hostOf(control *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(control)
	if err != nil {
		return nil, fmt.Errorf("standard input is no socket: %w", err)
	}
	_ = control.Close()
	host, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("standard input is no socket of the host's, but %T", conn)
	}
	return host, nil
}

// receive takes in what the host sends, each time a packet of so many bytes at most and a stream, until the socket is closed,
// or reset, as by a host that ends with requests unread.
func receive(host *net.UnixConn, most int, each func(data []byte, stream *net.UnixConn) error) error {
	data, rights := make([]byte, most), make([]byte, unix.CmsgSpace(4))
	for {
		length, more, _, _, err := host.ReadMsgUnix(data, rights)
		gone := errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET)
		if gone || err == nil && length == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		stream, err := streamOf(rights[:more])
		if err != nil {
			return err
		}
		if err := each(data[:length], stream); err != nil {
			return err
		}
	}
}

// streamOf is the socket that came with a request.
func streamOf(rights []byte) (*net.UnixConn, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages with a request: %v", len(messages), err)
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) != 1 {
		return nil, fmt.Errorf("%d descriptors with a request: %v", len(descriptors), err)
	}
	file := os.NewFile(uintptr(descriptors[0]), "stream")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	stream, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("a stream is %T", conn)
	}
	return stream, nil
}

// serve closes a stream without a word where nobody answers at the address.
func serve(ctx context.Context, asked request, stream *net.UnixConn) {
	defer stream.Close()
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, asked.Network, asked.Address)
	if err != nil {
		return
	}
	defer conn.Close()
	switch conn := conn.(type) {
	case *net.TCPConn:
		if _, err := stream.Write([]byte{joined}); err == nil {
			joinStreams(stream, conn)
		}
	case *net.UDPConn:
		joinPackets(stream, conn)
	}
}

type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// joinStreams copies both ways. The end of one direction is passed on as such.
func joinStreams(host *net.UnixConn, conn *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() { pass(host, conn) })
	pass(conn, host)
	back.Wait()
}

// pass copies through a buffer: splice(2) between sockets of the host and of the sandbox is for nobody to try.
func pass(to, from halfCloser) {
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, block)); err != nil {
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.CloseWrite()
}

// joinPackets passes packets until the host has closed its end. One that is refused is lost, as any may be.
func joinPackets(host *net.UnixConn, conn *net.UDPConn) {
	var back sync.WaitGroup
	back.Go(func() {
		buffer := make([]byte, 1+maxPacket)
		for {
			length, err := conn.Read(buffer[1:])
			if errors.Is(err, unix.ECONNREFUSED) {
				continue
			}
			if err == nil {
				_, err = host.Write(buffer[:1+length])
			}
			if err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 1+maxPacket)
	for {
		length, err := host.Read(buffer)
		if err != nil || length == 0 {
			break
		}
		_, _ = conn.Write(buffer[1:length])
	}
	_ = conn.Close()
	back.Wait()
}
