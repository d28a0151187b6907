package services

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

const (
	// udpIdle is how long a flow without packets lives: Linux' conntrack has 30 s
	// for a question and its answer, 120 s for a stream.
	udpIdle = 60 * time.Second
	// maxFlows bounds the sockets of one frontend.
	maxFlows   = 8192
	maxPacket  = 64 << 10
	udpBuffers = 1 << 20
)

// udpListener forwards the packets to one frontend. Each client address has a
// flow: a socket connected to one endpoint, whose answers go out through the
// listening socket and so come from the service's address.
type udpListener struct {
	conn     *net.UDPConn
	idle     time.Duration
	balancer atomic.Pointer[balancer]

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
}

type flow struct {
	conn     *net.UDPConn
	endpoint netip.AddrPort
	used     atomic.Int64 // Unix nanoseconds of the client's latest packet
}

func listenUDP(ctx context.Context, address netip.AddrPort, b *balancer, idle time.Duration, open *sync.WaitGroup) (*udpListener, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	// A larger buffer is a wish; the system's limit holds.
	_ = conn.SetReadBuffer(udpBuffers)
	l := &udpListener{conn: conn, idle: idle, flows: map[netip.AddrPort]*flow{}}
	l.balancer.Store(b)
	open.Go(func() { l.serve(ctx, open) })
	return l, nil
}

func (l *udpListener) use(b *balancer) { l.balancer.Store(b) }

// Close ends the flows too: their answers have no address left to come from.
func (l *udpListener) Close() error { return l.conn.Close() }

func (l *udpListener) serve(ctx context.Context, open *sync.WaitGroup) {
	defer l.closeFlows()
	buffer := make([]byte, maxPacket)
	for {
		n, client, err := l.conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// A pending ICMP error of an earlier answer; reading has cleared it.
			continue
		}
		f := l.flow(ctx, client, open)
		if f == nil {
			continue
		}
		f.used.Store(time.Now().UnixNano())
		if _, err := f.conn.Write(buffer[:n]); err != nil {
			// The endpoint refused an earlier packet; this one goes to another try.
			l.drop(client, f)
			if f = l.flow(ctx, client, open); f != nil {
				_, _ = f.conn.Write(buffer[:n])
			}
		}
	}
}

// flow returns the client's flow, a new one when there is none or its endpoint
// is no longer one of the service's. Nil means that the packet is dropped.
func (l *udpListener) flow(ctx context.Context, client netip.AddrPort, open *sync.WaitGroup) *flow {
	b := l.balancer.Load()
	l.mu.Lock()
	f := l.flows[client]
	l.mu.Unlock()
	if f != nil {
		if b.has(f.endpoint) {
			return f
		}
		l.drop(client, f)
	}
	endpoint, found := b.pick(client.Addr(), nil)
	if !found {
		return nil
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(endpoint))
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot open a flow", "service", l.conn.LocalAddr(), "endpoint", endpoint)
		return nil
	}
	f = &flow{conn: conn, endpoint: endpoint}
	f.used.Store(time.Now().UnixNano())
	l.add(client, f)
	open.Go(func() { l.answer(client, f) })
	return f
}

// add makes room where there is none by ending any one flow; its client's next
// packet opens another.
func (l *udpListener) add(client netip.AddrPort, f *flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flows) >= maxFlows {
		for other, victim := range l.flows {
			victim.conn.Close()
			delete(l.flows, other)
			break
		}
	}
	l.flows[client] = f
}

func (l *udpListener) drop(client netip.AddrPort, f *flow) {
	f.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows[client] == f {
		delete(l.flows, client)
	}
}

func (l *udpListener) closeFlows() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for client, f := range l.flows {
		f.conn.Close()
		delete(l.flows, client)
	}
}

// answer passes packets back until the flow was idle for long enough in both
// directions, or its endpoint refused, or it was closed.
func (l *udpListener) answer(client netip.AddrPort, f *flow) {
	defer l.drop(client, f)
	buffer := make([]byte, maxPacket)
	deadline := time.Now().Add(l.idle)
	for {
		_ = f.conn.SetReadDeadline(deadline)
		n, err := f.conn.Read(buffer)
		var timeout net.Error
		switch {
		case err == nil:
			// The client's socket may have gone; that is no end of the flow's.
			_, _ = l.conn.WriteToUDPAddrPort(buffer[:n], client)
			deadline = time.Now().Add(l.idle)
		case errors.As(err, &timeout) && timeout.Timeout():
			deadline = time.Unix(0, f.used.Load()).Add(l.idle)
			if !time.Now().Before(deadline) {
				return
			}
		default:
			return
		}
	}
}
