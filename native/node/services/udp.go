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

// udpBuffers is a wish; the system's limit holds.
const udpBuffers = 1 << 20

// udpListener forwards the packets to one frontend. Each client address has a
// flow: a socket connected to one endpoint, whose answers go out through the
// listening socket and so come from the service's address.
type udpListener struct {
	conn     *net.UDPConn
	balancer atomic.Pointer[balancer]
	flows    *flows
	own      *frontendFlows
}

func listenUDP(ctx context.Context, address netip.AddrPort, b *balancer, all *flows, open *sync.WaitGroup) (*udpListener, error) {
	conn, err := net.ListenUDP(network("udp", address), net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(udpBuffers)
	l := &udpListener{conn: conn, flows: all, own: all.register()}
	l.balancer.Store(b)
	open.Go(func() { l.serve(ctx, open) })
	return l, nil
}

// use also ends the flows to endpoints that are gone, so that no answer of theirs passes any more.
func (l *udpListener) use(b *balancer) {
	l.balancer.Store(b)
	l.flows.endUnless(l.own, func(f *flow) bool { return b.has(f.endpoint) })
}

// Close ends the flows too: their answers have no address left to come from.
func (l *udpListener) Close() error { return l.conn.Close() }

func (l *udpListener) serve(ctx context.Context, open *sync.WaitGroup) {
	defer l.flows.unregister(l.own)
	raw, err := l.conn.SyscallConn()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot serve", "address", l.conn.LocalAddr())
		return
	}
	var pause time.Duration
	for {
		packet, err := receive(raw)
		if err == nil {
			pause = 0
			l.pass(ctx, packet, open)
			packet.done()
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Mostly the ICMP error of an earlier answer, which reading has cleared. One that stays must not be a loop.
		pause = min(2*pause+time.Millisecond, maxAcceptPause)
		if pause > 100*time.Millisecond {
			klog.FromContext(ctx).Error(err, "Cannot receive", "address", l.conn.LocalAddr(), "pause", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// pass sends a client's packet to the endpoint of its flow. A packet that cannot be passed on is dropped.
func (l *udpListener) pass(ctx context.Context, p packet, open *sync.WaitGroup) {
	for range 2 {
		f := l.flow(ctx, p.from, open)
		if f == nil {
			return
		}
		if _, err := f.conn.Write(p.data); err == nil {
			return
		}
		// The endpoint refused an earlier packet; this one gets another try.
		l.flows.end(f)
	}
}

// flow returns the client's flow, a new one when there is none.
func (l *udpListener) flow(ctx context.Context, client netip.AddrPort, open *sync.WaitGroup) *flow {
	b := l.balancer.Load()
	if f := l.flows.find(l.own, client); f != nil {
		if b.has(f.endpoint) {
			return f
		}
		l.flows.end(f)
	}
	endpoint, _, found := b.pick(client.Addr(), nil)
	if !found {
		return nil
	}
	conn, err := net.DialUDP(network("udp", endpoint), nil, net.UDPAddrFromAddrPort(endpoint))
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot open a flow", "service", l.conn.LocalAddr(), "endpoint", endpoint, "err", err)
		return nil
	}
	f := &flow{conn: conn, client: client, endpoint: endpoint, of: l.own}
	l.flows.add(f)
	open.Go(func() { l.answer(f) })
	return f
}

// answer passes packets back until the flow is ended or its endpoint refuses.
func (l *udpListener) answer(f *flow) {
	defer l.flows.end(f)
	raw, err := f.conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		packet, err := receive(raw)
		if err != nil {
			return
		}
		l.flows.touch(f)
		// The client's socket may have gone; that is no end of the flow's.
		_, _ = l.conn.WriteToUDPAddrPort(packet.data, f.client)
		packet.done()
	}
}
