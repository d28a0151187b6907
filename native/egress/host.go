package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// longest is more than any packet has: a query for names has 64 KiB at most, in base 64.
const longest = 128 << 10

// request is what is said to the host: that all is ready, a connection that is wanted, one that was reset in the node, or a
// query for a name.
type request struct {
	Ready   bool   `json:"ready,omitempty"`
	ID      uint64 `json:"id,omitempty"`
	Connect string `json:"connect,omitempty"`
	From    string `json:"from,omitempty"`
	Reset   bool   `json:"reset,omitempty"`
	Query   []byte `json:"query,omitempty"`
	Stream  bool   `json:"stream,omitempty"` // the query came by TCP: the answer may be long
}

// reply is what the host says: of a connection that is wanted that it is there, with a stream; that it is refused; or nothing,
// as nothing answers where it leads. Of one that is there that it was reset. Or the answer to a query.
type reply struct {
	ID      uint64 `json:"id"`
	Joined  bool   `json:"joined"`
	Refused bool   `json:"refused"`
	Reset   bool   `json:"reset"`
	Answer  []byte `json:"answer"`
	stream  *net.UnixConn
	reset   <-chan struct{} // closed when the host says that the connection was reset
}

// host is the other end.
type host struct {
	conn    *net.UnixConn
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan reply    // for the first reply to a request
	resets  map[uint64]chan struct{} // of connections that stand
}

func newHost(file *os.File) (*host, error) {
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("standard input is no socket: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("standard input is no socket of the host's, but %T", conn)
	}
	return &host{conn: unixConn, waiting: map[uint64]chan reply{}, resets: map[uint64]chan struct{}{}}, nil
}

func (h *host) say(what request) error {
	text, err := json.Marshal(what)
	if err == nil {
		_, err = h.conn.Write(text)
	}
	return err
}

func (h *host) ready() { _ = h.say(request{Ready: true}) }

// ask says something and waits for the reply, which is empty when the host has gone.
func (h *host) ask(what request) reply {
	answer := make(chan reply, 1)
	h.mu.Lock()
	h.last++
	what.ID = h.last
	h.waiting[what.ID] = answer
	h.mu.Unlock()
	if h.say(what) != nil {
		return reply{ID: what.ID}
	}
	return <-answer
}

func (h *host) connect(from, to netip.AddrPort) reply {
	return h.ask(request{Connect: to.String(), From: from.String()})
}

func (h *host) resolve(query []byte, stream bool) []byte {
	return h.ask(request{Query: query, Stream: stream}).Answer
}

// reset tells the host that a connection was reset in the node.
func (h *host) reset(id uint64) { _ = h.say(request{ID: id, Reset: true}) }

// forget drops what is known of a connection that has ended.
func (h *host) forget(id uint64) {
	h.mu.Lock()
	delete(h.resets, id)
	h.mu.Unlock()
}

// listen hands out what the host says until it has gone. What it had not read when it went resets the socket.
func (h *host) listen() error {
	data, rights := make([]byte, longest), make([]byte, unix.CmsgSpace(4))
	for {
		length, more, _, _, err := h.conn.ReadMsgUnix(data, rights)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || err == nil && length == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listening to the host: %w", err)
		}
		var said reply
		if err := json.Unmarshal(data[:length], &said); err != nil {
			return fmt.Errorf("the host says what is no reply: %w", err)
		}
		if said.Joined {
			if said.stream, err = streamOf(rights[:more]); err != nil {
				return err
			}
		}
		h.take(said)
	}
}

func (h *host) take(said reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if said.Reset {
		if reset := h.resets[said.ID]; reset != nil {
			close(reset)
			delete(h.resets, said.ID)
		}
		return
	}
	if said.Joined {
		reset := make(chan struct{})
		h.resets[said.ID], said.reset = reset, reset
	}
	if waiting := h.waiting[said.ID]; waiting != nil {
		delete(h.waiting, said.ID)
		waiting <- said
	} else if said.stream != nil {
		_ = said.stream.Close()
	}
}

// streamOf is the socket that came with a reply.
func streamOf(rights []byte) (*net.UnixConn, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages with a reply: %v", len(messages), err)
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) != 1 {
		return nil, fmt.Errorf("%d descriptors with a reply: %v", len(descriptors), err)
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
