package services

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// udpIdle is how long a flow without packets lives: Linux' conntrack has 30 s
	// for a question and its answer, 120 s for a stream.
	udpIdle = 60 * time.Second
	// maxFlows bounds the sockets of all frontends together.
	maxFlows = 4096
)

// flow is a client of a frontend.
type flow struct {
	conn     *net.UDPConn
	client   netip.AddrPort
	endpoint netip.AddrPort
	of       *frontendFlows

	place *list.Element // in of.used; nil once it has ended
	used  time.Time     // the latest packet either way
}

// frontendFlows are those of one frontend.
type frontendFlows struct {
	byClient map[netip.AddrPort]*flow
	used     *list.List // of *flow, the least recently used first
}

// flows are those of all frontends. Where there is no room for one more, the least recently used of the frontend that
// has most makes way: a flood at one Service does not end the flows of others.
type flows struct {
	limit int
	idle  time.Duration

	mu        sync.Mutex
	count     int
	frontends map[*frontendFlows]bool
	sweeper   *time.Timer // set while there are flows
	closed    bool
}

func newFlows(limit int, idle time.Duration) *flows {
	return &flows{limit: limit, idle: idle, frontends: map[*frontendFlows]bool{}}
}

func (a *flows) register() *frontendFlows {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := &frontendFlows{byClient: map[netip.AddrPort]*flow{}, used: list.New()}
	a.frontends[own] = true
	return own
}

func (a *flows) unregister(own *frontendFlows) {
	a.endUnless(own, func(*flow) bool { return false })
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.frontends, own)
}

// find returns the client's flow, which is in use now; nil if it has none.
func (a *flows) find(own *frontendFlows, client netip.AddrPort) *flow {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := own.byClient[client]
	if f != nil {
		a.use(f)
	}
	return f
}

// add makes room where there is none; a client that lost its flow opens another with its next packet.
func (a *flows) add(f *flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.count >= a.limit {
		a.remove(a.fullest().used.Front().Value.(*flow))
	}
	f.used = time.Now()
	f.place = f.of.used.PushBack(f)
	f.of.byClient[f.client] = f
	a.count++
	if a.sweeper == nil && !a.closed {
		a.sweeper = time.AfterFunc(a.idle, a.sweep)
	}
}

func (a *flows) touch(f *flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.place != nil {
		a.use(f)
	}
}

func (a *flows) end(f *flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(f)
}

func (a *flows) endUnless(own *frontendFlows, keep func(*flow) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range own.byClient {
		if !keep(f) {
			a.remove(f)
		}
	}
}

// close stops the sweeper; the flows end with their frontends.
func (a *flows) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.sweeper != nil {
		a.sweeper.Stop()
	}
}

// The rest is called with the lock held, but for sweep.

func (a *flows) use(f *flow) {
	f.used = time.Now()
	f.of.used.MoveToBack(f.place)
}

func (a *flows) remove(f *flow) {
	if f.place == nil {
		return
	}
	f.conn.Close()
	f.of.used.Remove(f.place)
	f.place = nil
	if f.of.byClient[f.client] == f {
		delete(f.of.byClient, f.client)
	}
	a.count--
}

func (a *flows) fullest() *frontendFlows {
	var found *frontendFlows
	for each := range a.frontends {
		if found == nil || each.used.Len() > found.used.Len() {
			found = each
		}
	}
	return found
}

// sweep ends the flows that were idle for long enough. It comes again when the next one may be.
func (a *flows) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweeper = nil
	now := time.Now()
	next := a.idle
	for each := range a.frontends {
		for first := each.used.Front(); first != nil; first = each.used.Front() {
			f := first.Value.(*flow)
			if left := a.idle - now.Sub(f.used); left > 0 {
				next = min(next, left)
				break
			}
			a.remove(f)
		}
	}
	if a.count > 0 && !a.closed {
		a.sweeper = time.AfterFunc(max(next, a.idle/16), a.sweep)
	}
}
