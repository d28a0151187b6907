package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"sandkube/node/files"
)

// PullRole is the word that the program is started with which leads containerd, and nobody else, out to registries: the host
// asks them (sandkube/cluster/pull.py). containerd finds it by a file of hosts (containerd.toml has the folder), which holds a
// secret of this start. A pod in the node's network that connects, too, does not know that, and is refused here.
const PullRole = "pull"

// Registries is the folder that containerd looks for hosts of registries in.
const Registries = "/run/sandkube/registries"

const (
	secretHeader = "Sandkube-Pull"
	firstRequest = 10 * time.Second // until its header is there
	longestHead  = 64 << 10
)

const hosts = `server = "http://%s"
capabilities = ["pull", "resolve"]

[header]
%s = "%s"
`

// Pull serves until the socket of packets to the host is closed, or ctx ends. folder is Registries.
func Pull(ctx context.Context, control *os.File, folder string) error {
	host, err := hostOf(control)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = host.Close() })()
	gate := &gate{host: host, streams: make(chan *net.UnixConn), secret: []byte(rand.Text())}
	go func() { _ = gate.accept(listener) }()
	defer listener.Close()
	said := fmt.Sprintf(hosts, listener.Addr(), secretHeader, gate.secret)
	own := filepath.Join(folder, "_default")
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	if err := files.Replace(filepath.Join(own, "hosts.toml"), []byte(said), 0o600); err != nil {
		return err
	}
	return gate.receive()
}

// gate lets those in who know its secret.
type gate struct {
	host    *net.UnixConn
	streams chan *net.UnixConn // each answers one request for a stream; they are alike
	secret  []byte
}

// receive takes in the streams that the host hands over.
func (g *gate) receive() error {
	defer close(g.streams)
	return receive(g.host, 16, func(_ []byte, stream *net.UnixConn) error {
		g.streams <- stream
		return nil
	})
}

func (g *gate) accept(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go g.serve(conn.(*net.TCPConn))
	}
}

func (g *gate) serve(conn *net.TCPConn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(firstRequest))
	var seen bytes.Buffer
	head := io.TeeReader(io.LimitReader(conn, longestHead), &seen)
	request, err := http.ReadRequest(bufio.NewReader(head))
	if err != nil {
		return
	}
	if subtle.ConstantTimeCompare([]byte(request.Header.Get(secretHeader)), g.secret) != 1 {
		_, _ = io.WriteString(conn, "HTTP/1.1 403 only containerd pulls images\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	stream := g.stream()
	if stream == nil {
		return
	}
	defer stream.Close()
	if _, err := stream.Write(seen.Bytes()); err == nil {
		joinStreams(stream, conn)
	}
}

// stream is one to the host; nil when that has ended.
func (g *gate) stream() *net.UnixConn {
	if _, err := g.host.Write([]byte{1}); err != nil {
		return nil
	}
	return <-g.streams
}
