// Package policy has NetworkPolicies be obeyed: by the packet filter of the node's network, which sees what pods send to
// each other and to the node, and by the proxy of Services, whose endpoints see the node in place of their clients.
//
// What it keeps to is the API's own documentation (https://kubernetes.io/docs/concepts/services-networking/network-policies/).
// Where that leaves it open: connections that stand when a policy comes stay; ICMP passes by rules that name no port; what the
// node sends always passes, and what a pod sends to the node passes by ipBlock only, as pods with the node's network have no
// address by which they could be told from it; SCTP passes by rules that name no port number. The DNS server counts as a pod
// of kube-system that is labelled as CoreDNS' pods are. ICMP of IPv6 to and from the node always passes: by it neighbours are found.
package policy

import (
	"net/netip"
	"reflect"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"sandkube/node/changes"
	"sandkube/node/services"
)

// Pod is a pod with an address of its own; one of both families is two.
type Pod struct {
	Namespace string
	Labels    labels.Set
	Address   netip.Addr
	Ports     []v1.ContainerPort // the ones with names count
}

// World is what policies are about.
type World struct {
	Node       set // addresses that the node may have sent from, none of a pod
	Namespaces map[string]labels.Set
	Pods       []Pod
	Policies   []*networking.NetworkPolicy
}

// span is a range of ports; all traffic where it has no protocol.
type span struct {
	protocol    v1.Protocol
	first, last uint16
}

var (
	everything = span{}
	everywhere = setOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
)

func (s span) has(protocol v1.Protocol, port uint16) bool {
	return s == everything || s.protocol == protocol && s.first <= port && port <= s.last
}

// permit has the traffic of a pod pass to some addresses, or from them.
type permit struct {
	span
	peers set
}

// permits are all that a pod is permitted in one direction.
type permits []permit

func (p permits) pass(peer netip.Addr, protocol v1.Protocol, port uint16) bool {
	for _, each := range p {
		if each.has(protocol, port) && each.peers.has(peer) {
			return true
		}
	}
	return false
}

// Rules are what policies come to: what isolated pods are permitted. Pods that no policy selects are not in it.
type Rules struct {
	node            set
	ingress, egress map[netip.Addr]permits
}

// Allows tells whether a connection may be made.
func (r *Rules) Allows(from, to netip.Addr, protocol v1.Protocol, port uint16) bool {
	if r == nil || from == to {
		return true
	}
	if permitted, isolated := r.egress[from]; isolated && !permitted.pass(to, protocol, port) {
		return false
	}
	permitted, isolated := r.ingress[to]
	return !isolated || r.node.has(from) || permitted.pass(from, protocol, port)
}

// Filter is what all of it comes to at the moment, for the proxy of Services, and what the proxy would have the kernel do.
type Filter struct {
	rules        atomic.Pointer[Rules]
	translations atomic.Pointer[[]services.Translation]
	changed      changes.Signal
}

// NewFilter returns one that allows everything.
func NewFilter() *Filter { return &Filter{changed: changes.NewSignal()} }

// Allows tells whether a client may have a connection to an endpoint.
func (f *Filter) Allows(client netip.Addr, endpoint netip.AddrPort, protocol v1.Protocol) bool {
	return f.rules.Load().Allows(client, endpoint.Addr(), protocol, endpoint.Port())
}

// Translate says what the kernel is to translate, if it can, and policies allow it whatever the endpoint.
func (f *Filter) Translate(all []services.Translation) {
	if before := f.translations.Swap(&all); before == nil && len(all) == 0 || before != nil && reflect.DeepEqual(*before, all) {
		return
	}
	f.changed.Notify()
}

func (f *Filter) follow(rules *Rules) { f.rules.Store(rules) }

// translated are those that were asked for last.
func (f *Filter) translated() []services.Translation {
	if all := f.translations.Load(); all != nil {
		return *all
	}
	return nil
}
