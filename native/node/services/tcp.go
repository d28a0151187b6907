package services

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// dialTimeout is for all endpoints of a connection together; leastTry is what each is given at least. Tests wait for less.
var (
	dialTimeout = 10 * time.Second
	leastTry    = 2 * time.Second
)

const (
	maxAcceptPause = time.Second
	// lookAfter is when a client is watched that waits for an endpoint; in the sandbox most answer in a millisecond.
	lookAfter = 50 * time.Millisecond
)

// tcpListener forwards the connections to one frontend. Closing it leaves
// established connections alone: they end with their peers, with keep-alive
// when a peer vanished, or with the context.
type tcpListener struct {
	listener *net.TCPListener
	balancer atomic.Pointer[balancer]
	places   *places
}

// listenTCP serves until the listener is closed or ctx ends. Connections that
// it accepted belong to open.
func listenTCP(ctx context.Context, address netip.AddrPort, b *balancer, places *places, open *sync.WaitGroup) (*tcpListener, error) {
	listener, err := net.ListenTCP(network("tcp", address), net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	l := &tcpListener{listener: listener, places: places}
	l.balancer.Store(b)
	open.Go(func() { l.serve(ctx, open) })
	return l, nil
}

func (l *tcpListener) use(b *balancer) { l.balancer.Store(b) }

func (l *tcpListener) Close() error { return l.listener.Close() }

func (l *tcpListener) serve(ctx context.Context, open *sync.WaitGroup) {
	var pause time.Duration
	for {
		client, err := l.listener.AcceptTCP()
		if err == nil {
			pause = 0
			open.Go(func() { l.forward(ctx, client) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// What is left is a shortage (of file descriptors, of memory): nothing
		// tells of its end, so try again at growing intervals.
		pause = min(max(2*pause, 5*time.Millisecond), maxAcceptPause)
		klog.FromContext(ctx).Error(err, "Cannot accept", "address", l.listener.Addr(), "pause", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (l *tcpListener) forward(ctx context.Context, client *net.TCPConn) {
	from := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	if !l.places.take(from) {
		klog.FromContext(ctx).V(2).Info("Too many connections", "service", l.listener.Addr(), "client", from)
		abort(client)
		return
	}
	defer l.places.leave(from)
	backend := l.dial(ctx, client, from)
	if backend == nil {
		abort(client)
		return
	}
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		backend.Close()
	})
	defer stop()
	relay(client, backend)
}

// dial tries the endpoints until one accepts, the time is up or the client has gone.
func (l *tcpListener) dial(ctx context.Context, client *net.TCPConn, from netip.Addr) *net.TCPConn {
	deadline := time.Now().Add(dialTimeout)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	defer watch(client, cancel)()
	b := l.balancer.Load()
	var failed []netip.AddrPort
	for ctx.Err() == nil {
		endpoint, left, found := b.pick(from, failed)
		if !found {
			return nil
		}
		dialer := net.Dialer{Timeout: max(leastTry, time.Until(deadline)/time.Duration(left))}
		conn, err := dialer.DialContext(ctx, network("tcp", endpoint), endpoint.String())
		if err == nil {
			return conn.(*net.TCPConn)
		}
		klog.FromContext(ctx).V(2).Info("Endpoint refused", "endpoint", endpoint, "service", l.listener.Addr(), "err", err)
		failed = append(failed, endpoint)
	}
	return nil
}

// watch calls gone when a client resets its connection; the function that it returns ends that. A client that only has
// no more to say has not gone: it may wait for an answer.
func watch(client *net.TCPConn, gone func()) (stop func()) {
	done := make(chan struct{})
	timer := time.AfterFunc(lookAfter, func() {
		defer close(done)
		raw, err := client.SyscallConn()
		if err != nil {
			return
		}
		// What comes meanwhile is left where it is: each event is a new look.
		_ = raw.Read(func(descriptor uintptr) bool {
			state := []unix.PollFd{{Fd: int32(descriptor)}} // POLLERR and POLLHUP need not be asked for
			ready, err := unix.Poll(state, 0)
			if err != nil || ready == 0 {
				return false
			}
			gone()
			return true
		})
	})
	return func() {
		if timer.Stop() {
			return
		}
		_ = client.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = client.SetReadDeadline(time.Time{})
	}
}

// relay copies both ways until both sides have finished. The end of one
// direction is passed on as such, so a client may close its side and still
// read the answer.
func relay(a, b *net.TCPConn) {
	defer a.Close()
	defer b.Close()
	var back sync.WaitGroup
	back.Go(func() { copyHalf(a, b) })
	copyHalf(b, a)
	back.Wait()
}

func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		abort(to)
		abort(from)
		return
	}
	// The peer may have gone: its reset is seen by the other direction.
	_ = to.CloseWrite()
}

// abort closes with a reset, the way the peers would have met each other's.
func abort(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
