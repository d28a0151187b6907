package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// addressOwner puts addresses on the node and takes them away again.
type addressOwner interface {
	Add(netip.Addr) error
	Remove(netip.Addr) error
}

// network is that of a protocol, tcp or udp, for an address.
func network(protocol string, address netip.AddrPort) string {
	if address.Addr().Is6() {
		return protocol + "6"
	}
	return protocol + "4"
}

// listener serves one frontend; use switches it to a rule's endpoints, and is called after each change of them.
type listener interface {
	io.Closer
	use(*balancer)
}

// table holds what is being served now. Only one goroutine calls apply.
type table struct {
	owner     addressOwner
	allows    Judge
	flows     *flows
	places    *places
	balancers map[string]*balancer
	listeners map[frontend]listener
	addresses map[netip.Addr]bool
	open      sync.WaitGroup // every goroutine that forwards
}

func newTable(owner addressOwner, allows Judge) *table {
	return &table{
		owner:     owner,
		allows:    allows,
		flows:     newFlows(maxFlows, udpIdle),
		places:    newPlaces(maxConnections, maxOfClient),
		balancers: map[string]*balancer{},
		listeners: map[frontend]listener{},
		addresses: map[netip.Addr]bool{},
	}
}

// apply makes the table serve the wanted state. What could not be done (an
// address in use by another program) is in the error; all else is served, and
// applying the same state again tries the rest once more.
func (t *table) apply(ctx context.Context, want state) error {
	var problems []error
	addresses := map[netip.Addr]bool{}
	for _, address := range want.Addresses {
		addresses[address] = true
		if t.addresses[address] {
			continue
		}
		if err := t.owner.Add(address); err != nil {
			problems = append(problems, err)
			continue
		}
		t.addresses[address] = true
	}
	serving := t.balance(want.Rules)
	for place, l := range t.listeners {
		if serving[place] == nil {
			l.Close()
			delete(t.listeners, place)
		}
	}
	for place, b := range serving {
		if err := t.listen(ctx, place, b); err != nil {
			problems = append(problems, err)
		}
	}
	for address := range t.addresses {
		if addresses[address] {
			continue
		}
		if err := t.owner.Remove(address); err != nil {
			problems = append(problems, err)
			continue
		}
		delete(t.addresses, address)
	}
	return errors.Join(problems...)
}

// balance updates the endpoints of each rule and returns who serves which
// frontend. Rules without endpoints serve none.
func (t *table) balance(rules []rule) map[frontend]*balancer {
	serving := map[frontend]*balancer{}
	balancers := map[string]*balancer{}
	for _, r := range rules {
		b := t.balancers[r.Name]
		if b == nil {
			b = newBalancer(time.Now)
		}
		b.update(r.Endpoints, r.Affinity)
		b.split(r.Near, r.Affinity)
		b.admit(r.Sources)
		balancers[r.Name] = b
		for _, place := range r.Frontends {
			b.judge(func(client netip.Addr, endpoint netip.AddrPort) bool {
				return t.allows(client, endpoint, place.Protocol)
			})
			if r.served() {
				serving[place] = b
			}
		}
	}
	t.balancers = balancers
	return serving
}

func (t *table) listen(ctx context.Context, place frontend, b *balancer) error {
	if l, found := t.listeners[place]; found {
		l.use(b)
		return nil
	}
	var l listener
	var err error
	switch place.Protocol {
	case v1.ProtocolTCP:
		l, err = listenTCP(ctx, place.Address, b, t.places, &t.open)
	case v1.ProtocolUDP:
		l, err = listenUDP(ctx, place.Address, b, t.flows, &t.open)
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("serve %s: %w", place.Address, err)
	}
	t.listeners[place] = l
	return nil
}

// close ends all listeners, waits for every connection and removes the
// addresses. The context of the connections must have ended.
func (t *table) close() error {
	for place, l := range t.listeners {
		l.Close()
		delete(t.listeners, place)
	}
	t.flows.close()
	t.open.Wait()
	var problems []error
	for address := range t.addresses {
		problems = append(problems, t.owner.Remove(address))
		delete(t.addresses, address)
	}
	return errors.Join(problems...)
}
