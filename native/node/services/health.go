package services

import (
	"errors"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/proxy/healthcheck"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
)

// check is a health check node port: by it a balancer outside of the cluster finds the nodes that have endpoints of a Service
// whose traffic from outside stays on the node that it came to. Ready has how many each node has, those that have one.
type check struct {
	Service types.NamespacedName
	Port    uint16
	Ready   map[string]int
}

// checkOf is nil for a Service that has none. Endpoints that end are none here, or a balancer would go on choosing the node.
func checkOf(service *v1.Service, endpoints []*discovery.EndpointSlice) *check {
	port := service.Spec.HealthCheckNodePort
	if port == 0 || service.Spec.ExternalTrafficPolicy != v1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	found := &check{types.NamespacedName{Namespace: service.Namespace, Name: service.Name}, uint16(port), map[string]int{}}
	seen := map[string]bool{} // several ports have several slices, with the same addresses
	for _, slice := range endpoints {
		for _, each := range slice.Endpoints {
			if !isTrue(each.Conditions.Ready, true) || each.NodeName == nil || len(each.Addresses) == 0 || seen[each.Addresses[0]] {
				continue
			}
			seen[each.Addresses[0]] = true
			found.Ready[*each.NodeName]++
		}
	}
	return found
}

// healthy is what the checks say of the proxy: one that is not in order ends with the node.
type healthy struct{}

func (healthy) Health() healthcheck.ProxyHealth { return healthcheck.ProxyHealth{Healthy: true} }

// checks serves the health check ports of all nodes, each on its own addresses.
type checks map[string]healthcheck.ServiceHealthServer

func newChecks(node Node) checks {
	server := func(name string, addresses ...netip.Addr) healthcheck.ServiceHealthServer {
		var own []string
		for _, each := range addresses {
			own = append(own, netip.PrefixFrom(each, each.BitLen()).String())
		}
		return healthcheck.NewServiceHealthServer(name, nil, proxyutil.NewNodePortAddresses(v1.IPv4Protocol, own), healthy{})
	}
	all := checks{node.Name: server(node.Name, node.Addresses...)}
	for _, each := range node.Others {
		all[each.Name] = server(each.Name, each.Address)
	}
	return all
}

// apply serves these and no others. A port that another program has is logged, and tried again with the next change.
func (c checks) apply(wanted []check) error {
	ports := map[types.NamespacedName]uint16{}
	for _, each := range wanted {
		ports[each.Service] = each.Port
	}
	var problems []error
	for node, server := range c {
		ready := map[types.NamespacedName]int{}
		for _, each := range wanted {
			ready[each.Service] = each.Ready[node]
		}
		problems = append(problems, server.SyncServices(ports), server.SyncEndpoints(ready))
	}
	return errors.Join(problems...)
}
