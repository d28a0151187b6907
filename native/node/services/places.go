package services

import (
	"net/netip"
	"sync"
)

const (
	// maxConnections bounds the TCP connections of all frontends together, maxOfClient those of one client: so no pod
	// takes all. A connection costs two sockets and two small stacks.
	maxConnections = 8192
	maxOfClient    = 4096
)

// places are those that connections take.
type places struct {
	limit, perClient int

	mu       sync.Mutex
	taken    int
	byClient map[netip.Addr]int
}

func newPlaces(limit, perClient int) *places {
	return &places{limit: limit, perClient: perClient, byClient: map[netip.Addr]int{}}
}

// take tells whether there was a place; leave gives it back.
func (p *places) take(client netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.limit || p.byClient[client] >= p.perClient {
		return false
	}
	p.taken++
	p.byClient[client]++
	return true
}

func (p *places) leave(client netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.byClient[client]--; p.byClient[client] == 0 {
		delete(p.byClient, client)
	}
}
