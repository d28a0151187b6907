package services

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// Translation is what a kernel can do in place of the proxy: send who opens a connection of TCP to a frontend to one of some
// endpoints, in turn, each of which then sees the client's own address.
type Translation struct {
	Frontend netip.AddrPort
	Choices  []Choice // the first that has the client counts
}

// Choice is the endpoints of some clients; there may be none.
type Choice struct {
	Clients   netip.Prefix // all, if it is none
	Endpoints []netip.AddrPort
}

// Endpoints are those of all clients.
func (t Translation) Endpoints() []netip.AddrPort {
	var all []netip.AddrPort
	for _, each := range t.Choices {
		all = append(all, each.Endpoints...)
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// translations are those of a state, sorted by frontend. The rest is the proxy's: clients that stay with an endpoint, or are not all
// served, endpoints that are no pods, and UDP, where a kernel has a client stay with an endpoint that is gone.
func (s state) translations(node Node) []Translation {
	var all []Translation
	for _, each := range s.Rules {
		if each.Affinity != 0 || len(each.Sources) > 0 {
			continue
		}
		one := Translation{Choices: append(slices.Clone(each.Near), Choice{Endpoints: each.Endpoints})}
		endpoints := one.Endpoints()
		if len(endpoints) == 0 || slices.ContainsFunc(endpoints, func(to netip.AddrPort) bool { return !node.pod(to.Addr()) }) {
			continue
		}
		for _, place := range each.Frontends {
			if place.Protocol == v1.ProtocolTCP && !place.Address.Addr().IsLoopback() {
				one.Frontend = place.Address
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(a, b Translation) int { return a.Frontend.Compare(b.Frontend) })
	return all
}
