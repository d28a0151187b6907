package services

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// readyEndpoints gives the sorted endpoints of a port: the ready ones or, when
// there are none, those that still serve while they terminate (KEP-1669).
// For a Service with publishNotReadyAddresses the slices say ready already.
// With names of nodes only those on them count, as kube-proxy's do.
func readyEndpoints(endpoints []*discovery.EndpointSlice, name string, protocol v1.Protocol, nodes ...string) []netip.AddrPort {
	var ready, terminating []netip.AddrPort
	for _, slice := range endpoints {
		port, found := slicePort(slice, name, protocol)
		if !found {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if len(nodes) > 0 && (endpoint.NodeName == nil || !slices.Contains(nodes, *endpoint.NodeName)) {
				continue
			}
			target := &terminating
			if isTrue(endpoint.Conditions.Ready, true) {
				target = &ready
			} else if !isTrue(endpoint.Conditions.Serving, false) || !isTrue(endpoint.Conditions.Terminating, false) {
				continue
			}
			// All addresses of an endpoint are the same one; consumers use the first.
			if len(endpoint.Addresses) == 0 {
				continue
			}
			if address, err := netip.ParseAddr(endpoint.Addresses[0]); err == nil {
				*target = append(*target, netip.AddrPortFrom(address, port))
			}
		}
	}
	if len(ready) == 0 {
		ready = terminating
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// slicePort finds a Service's port in a slice by its name: the slice holds the
// number that a named target port has in its pods.
func slicePort(slice *discovery.EndpointSlice, name string, protocol v1.Protocol) (uint16, bool) {
	for _, port := range slice.Ports {
		sameName := (port.Name == nil && name == "") || (port.Name != nil && *port.Name == name)
		sameProtocol := (port.Protocol == nil && protocol == v1.ProtocolTCP) || (port.Protocol != nil && *port.Protocol == protocol)
		if sameName && sameProtocol && port.Port != nil {
			return uint16(*port.Port), true
		}
	}
	return 0, false
}

func isTrue(condition *bool, unset bool) bool {
	if condition == nil {
		return unset
	}
	return *condition
}
