package services

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// frontend is one place to listen on.
type frontend struct {
	Protocol v1.Protocol
	Address  netip.AddrPort
}

// rule says where one port of a Service (or one host port) is listened for and
// where its traffic goes. Affinity 0 means none.
type rule struct {
	Name      string
	Frontends []frontend
	Endpoints []netip.AddrPort
	Affinity  time.Duration
}

// state is what a set of API objects asks of the node. Addresses are those to
// put on lo: also those of services without endpoints, so that the node
// refuses their traffic instead of routing it.
type state struct {
	Addresses []netip.Addr
	Rules     []rule
}

// desired computes the state. nodeAddresses are the node's own; node ports are
// served on each of them. Rules come sorted by name: where two ask for the
// same frontend, the first has it.
func desired(all []*v1.Service, endpoints []*discovery.EndpointSlice, hostPorts []hostPorts, nodeAddresses []netip.Addr) state {
	byService := map[string][]*discovery.EndpointSlice{}
	for _, slice := range endpoints {
		if slice.AddressType == discovery.AddressTypeIPv4 {
			key := slice.Namespace + "/" + slice.Labels[discovery.LabelServiceName]
			byService[key] = append(byService[key], slice)
		}
	}
	var want state
	for _, service := range all {
		addresses := serviceAddresses(service)
		if len(addresses) == 0 {
			continue
		}
		for _, address := range addresses {
			if !slices.Contains(nodeAddresses, address) {
				want.Addresses = append(want.Addresses, address)
			}
		}
		key := service.Namespace + "/" + service.Name
		for _, port := range service.Spec.Ports {
			want.Rules = append(want.Rules, serviceRule(service, port, addresses, byService[key], nodeAddresses))
		}
	}
	for _, pod := range hostPorts {
		want.Rules = append(want.Rules, pod.rules(nodeAddresses)...)
	}
	slices.SortFunc(want.Addresses, netip.Addr.Compare)
	want.Addresses = slices.Compact(want.Addresses)
	slices.SortFunc(want.Rules, func(a, b rule) int { return cmp.Compare(a.Name, b.Name) })
	return want
}

// serviceAddresses gives the IPv4 addresses of a Service: none for a headless
// one and for an external name.
func serviceAddresses(service *v1.Service) []netip.Addr {
	if service.Spec.Type == v1.ServiceTypeExternalName {
		return nil
	}
	texts := service.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{service.Spec.ClusterIP}
	}
	var addresses []netip.Addr
	for _, text := range slices.Concat(texts, service.Spec.ExternalIPs) {
		if address, err := netip.ParseAddr(text); err == nil && address.Is4() {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

func serviceRule(service *v1.Service, port v1.ServicePort, addresses []netip.Addr, endpoints []*discovery.EndpointSlice, nodeAddresses []netip.Addr) rule {
	protocol := cmp.Or(port.Protocol, v1.ProtocolTCP)
	r := rule{
		Name:      service.Namespace + "/" + service.Name + ":" + strconv.Itoa(int(port.Port)) + "/" + string(protocol),
		Endpoints: readyEndpoints(endpoints, port.Name, protocol),
		Affinity:  affinity(service),
	}
	for _, address := range addresses {
		r.Frontends = append(r.Frontends, frontend{protocol, netip.AddrPortFrom(address, uint16(port.Port))})
	}
	if port.NodePort > 0 {
		for _, address := range nodeAddresses {
			r.Frontends = append(r.Frontends, frontend{protocol, netip.AddrPortFrom(address, uint16(port.NodePort))})
		}
	}
	return r
}

func affinity(service *v1.Service) time.Duration {
	if service.Spec.SessionAffinity != v1.ServiceAffinityClientIP {
		return 0
	}
	seconds := v1.DefaultClientIPServiceAffinitySeconds
	if c := service.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

// readyEndpoints gives the sorted endpoints of a port: the ready ones or, when
// there are none, those that still serve while they terminate (KEP-1669).
// For a Service with publishNotReadyAddresses the slices say ready already.
func readyEndpoints(endpoints []*discovery.EndpointSlice, name string, protocol v1.Protocol) []netip.AddrPort {
	var ready, terminating []netip.AddrPort
	for _, slice := range endpoints {
		port, found := slicePort(slice, name, protocol)
		if !found {
			continue
		}
		for _, endpoint := range slice.Endpoints {
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
