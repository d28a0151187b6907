package services

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// balancer picks endpoints for the clients of one rule, in turn, and keeps a
// client on its endpoint while affinity lasts. All frontends of a rule share
// one, so a client meets the same endpoint through each of them.
type balancer struct {
	now func() time.Time

	mu        sync.Mutex
	endpoints []netip.AddrPort
	turn      int
	affinity  time.Duration
	sources   []netip.Prefix
	allows    func(client netip.Addr, endpoint netip.AddrPort) bool
	near      map[netip.Prefix]*balancer // of clients with endpoints of their own
	sessions  map[netip.Addr]session
	purgeAt   int
}

type session struct {
	endpoint netip.AddrPort
	used     time.Time
}

const minPurge = 1024

func newBalancer(now func() time.Time) *balancer {
	all := func(netip.Addr, netip.AddrPort) bool { return true }
	return &balancer{now: now, allows: all, sessions: map[netip.Addr]session{}, purgeAt: minPurge}
}

// update replaces the endpoints. Sessions with an endpoint that is gone end.
func (b *balancer) update(endpoints []netip.AddrPort, affinity time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpoints = endpoints
	b.affinity = affinity
	for client, s := range b.sessions {
		if affinity == 0 || !slices.Contains(endpoints, s.endpoint) {
			delete(b.sessions, client)
		}
	}
}

// split gives some clients endpoints of their own.
func (b *balancer) split(all []Choice, affinity time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.near
	b.near = make(map[netip.Prefix]*balancer, len(all))
	for _, each := range all {
		one := before[each.Clients]
		if one == nil {
			one = newBalancer(b.now)
		}
		one.update(each.Endpoints, affinity)
		b.near[each.Clients] = one
	}
}

// admit has only clients of these ranges be served; all, where there are none.
func (b *balancer) admit(sources []netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources = sources
}

// judge has a client be sent to those endpoints only that it may reach.
func (b *balancer) judge(allows func(client netip.Addr, endpoint netip.AddrPort) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allows = allows
	for _, each := range b.near {
		each.judge(allows)
	}
}

// has tells whether an endpoint is still one to send to.
func (b *balancer) has(endpoint netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, found := slices.BinarySearchFunc(b.endpoints, endpoint, netip.AddrPort.Compare)
	for _, each := range b.near {
		found = found || each.has(endpoint)
	}
	return found
}

// pick chooses an endpoint that the client may reach and is not among those that failed already. left is how many of those there are.
func (b *balancer) pick(client netip.Addr, failed []netip.AddrPort) (endpoint netip.AddrPort, left int, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	admits := func(each netip.Prefix) bool { return each.Contains(client) }
	if len(b.sources) > 0 && !slices.ContainsFunc(b.sources, admits) {
		return netip.AddrPort{}, 0, false
	}
	for clients, each := range b.near {
		if clients.Contains(client) {
			return each.pick(client, failed)
		}
	}
	now := b.now()
	left = max(1, len(b.endpoints)-len(failed)) // of failed some may have gone meanwhile
	if b.affinity > 0 {
		s, found := b.sessions[client]
		if found && now.Sub(s.used) <= b.affinity && !slices.Contains(failed, s.endpoint) && b.allows(client, s.endpoint) {
			b.sessions[client] = session{s.endpoint, now}
			return s.endpoint, left, true
		}
	}
	for range b.endpoints {
		endpoint := b.endpoints[b.turn%len(b.endpoints)]
		b.turn = (b.turn + 1) % len(b.endpoints)
		if slices.Contains(failed, endpoint) || !b.allows(client, endpoint) {
			continue
		}
		if b.affinity > 0 {
			b.purge(now)
			b.sessions[client] = session{endpoint, now}
		}
		return endpoint, left, true
	}
	return netip.AddrPort{}, 0, false
}

// purge drops outdated sessions each time their number has doubled, which
// keeps the cost of an insertion constant on average.
func (b *balancer) purge(now time.Time) {
	if len(b.sessions) < b.purgeAt {
		return
	}
	for client, s := range b.sessions {
		if now.Sub(s.used) > b.affinity {
			delete(b.sessions, client)
		}
	}
	b.purgeAt = max(minPurge, 2*len(b.sessions))
}
