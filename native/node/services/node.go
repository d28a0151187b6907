package services

import (
	"net/netip"
	"slices"
)

// Node is the node that Services are served on, in one family of addresses; with others, if several share a network stack.
type Node struct {
	Name      string
	Addresses []netip.Addr     // its own: node ports and host ports are served on each of them
	Others    []Other          // nodes beside it
	Pods      netip.Prefix     // of its own pods, and of itself
	Ranges    []netip.Prefix   // of pods and Services: no other Service's or pod's address may be claimed
	Balanced  netip.Prefix     // of load balancers: a Service has one of it by its status only
	Ports     []uint16         // TCP ports of its own addresses that the node itself has
	Taken     []netip.AddrPort // TCP places on addresses of Services that the node itself serves
	Second    *Node            // the same in IPv6, in a cluster of dual stack
}

// second says whether this is the node in IPv6.
func (n Node) second() bool { return len(n.Addresses) > 0 && n.Addresses[0].Is6() }

// Other is a further node.
type Other struct {
	Name    string
	Address netip.Addr
	Pods    netip.Prefix // clients, and host ports, are of the node whose pod has the address
}

// all are the addresses of all nodes.
func (n Node) all() []netip.Addr {
	addresses := slices.Clone(n.Addresses)
	for _, each := range n.Others {
		addresses = append(addresses, each.Address)
	}
	return addresses
}

// of are the addresses of the node that has a pod.
func (n Node) of(pod netip.Addr) []netip.Addr {
	for _, each := range n.Others {
		if each.Pods.Contains(pod) {
			return []netip.Addr{each.Address}
		}
	}
	return n.Addresses
}

// pod says whether an address is a pod's, of any node and of either family.
func (n Node) pod(address netip.Addr) bool {
	if n.Second != nil && n.Second.pod(address) {
		return true
	}
	of := func(each Other) bool { return each.Pods.Contains(address) }
	return (n.Pods.Contains(address) || slices.ContainsFunc(n.Others, of)) && !slices.Contains(n.all(), address)
}

// names are those of all nodes.
func (n Node) names() []string {
	names := []string{n.Name}
	for _, each := range n.Others {
		names = append(names, each.Name)
	}
	return names
}
