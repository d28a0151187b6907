package components

import (
	"net"
	"strconv"
	"sync"

	"sandkube/node/cluster"
)

// listeners are several as one, whose address is that of the first.
type listeners struct {
	net.Listener
	all      []net.Listener
	accepted chan accepted
	closed   chan struct{}
	close    func() error
}

type accepted struct {
	connection net.Conn
	err        error
}

// Listen opens the API's port on the node's addresses, and on no other: in gVisor a pod may have the port of a specific
// address that a wildcard has already. Whoever connects before the API server runs waits. Listeners that somebody else
// opened, in another network, are part of it, and so is one for clients of this process.
func Listen(of cluster.Cluster, others ...net.Listener) (net.Listener, error) {
	port := strconv.Itoa(int(of.APIPort))
	loopback := net.JoinHostPort("127.0.0.1", port)
	apiAddress.Store(&loopback)
	others = append(others, listenInside(&ofAPI))
	return ListenOn(others, loopback, net.JoinHostPort(of.NodeAddress.String(), port))
}

// ListenOn is Listen on other addresses.
func ListenOn(others []net.Listener, addresses ...string) (net.Listener, error) {
	joined := &listeners{accepted: make(chan accepted), closed: make(chan struct{})}
	joined.close = sync.OnceValue(func() error {
		close(joined.closed)
		var first error
		for _, each := range joined.all {
			if err := each.Close(); first == nil {
				first = err
			}
		}
		return first
	})
	for _, address := range addresses {
		one, err := net.Listen("tcp4", address)
		if err != nil {
			_ = joined.close()
			return nil, err
		}
		joined.all = append(joined.all, one)
	}
	joined.Listener = joined.all[0]
	joined.all = append(joined.all, others...)
	for _, one := range joined.all {
		go joined.take(one)
	}
	return joined, nil
}

// take passes on what a listener accepts, errors too: whoever accepts decides whether they last.
func (l *listeners) take(one net.Listener) {
	for {
		connection, err := one.Accept()
		select {
		case l.accepted <- accepted{connection, err}:
		case <-l.closed:
			if err == nil {
				_ = connection.Close()
			}
			return
		}
	}
}

func (l *listeners) Accept() (net.Conn, error) {
	select {
	case next := <-l.accepted:
		return next.connection, next.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listeners) Close() error { return l.close() }
