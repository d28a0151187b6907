package components

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/test/bufconn"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/transport"
)

// Most of the API's clients are in its process, and so is its datastore. They meet without a socket: in gVisor a system call
// costs several times what it costs on Linux. What they say to each other is the same, TLS and all. (client-go and apiserver
// are patched to ask how to dial.)

// room is how many bytes may be on their way in one direction.
const room = 32 << 10

// inside is a listener without a socket, whose connections have addresses as those of sockets have.
type inside struct{ *bufconn.Listener }

func (l inside) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return local{connection}, nil
}

type local struct{ net.Conn }

func (local) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (local) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// ofAPI and ofDatastore are what is listened on now: nil before, and where it is another process that serves.
var ofAPI, ofDatastore atomic.Pointer[inside]

// apiAddress is the one that clients of this process have from their kubeconfigs.
var apiAddress atomic.Pointer[string]

// Within has clients of this process meet the API server and the datastore there. To be called before the first client is made.
func Within() {
	outside := (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext // client-go's own
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if known := apiAddress.Load(); known != nil && *known == address {
			if l := ofAPI.Load(); l != nil {
				return dial(ctx, l)
			}
		}
		return outside(ctx, network, address)
	}
	factory.DialContext = func(ctx context.Context, address string) (net.Conn, error) {
		if l := ofDatastore.Load(); l != nil {
			return dial(ctx, l)
		}
		return (&net.Dialer{}).DialContext(ctx, "unix", socketPath(address))
	}
}

func dial(ctx context.Context, l *inside) (net.Conn, error) {
	connection, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	return local{connection}, nil
}

// listenInside opens a listener without a socket, and makes it known.
func listenInside(known *atomic.Pointer[inside]) net.Listener {
	l := &inside{bufconn.Listen(room)}
	known.Store(l)
	return l
}
