package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sandkube/node/iptables"
	"sandkube/node/services"
)

// toServices is the chain that sends those who open a connection to a Service on to one of its endpoints.
const toServices = "services"

// opening is a packet that opens a connection of TCP. Connections that stand are never translated, as those that the proxy has.
var opening = iptables.Rule{
	Protocol: unix.IPPROTO_TCP, Flags: &iptables.Flags{Mask: iptables.SYN | iptables.ACK, Set: iptables.SYN}, Jump: toServices,
}

// translated are the translations of a family that need not be judged by client and endpoint: a filter sees what a client
// asked for, and not what it gets. So those with an endpoint that not everybody may reach are the proxy's, and so are clients who may not reach all.
func (r *Rules) translated(all []services.Translation, second bool) []services.Translation {
	isolated := func(endpoint netip.AddrPort) bool { _, found := r.ingress[endpoint.Addr()]; return found }
	var found []services.Translation
	for _, each := range all {
		if each.Frontend.Addr().Is6() == second && !slices.ContainsFunc(each.Endpoints(), isolated) {
			found = append(found, each)
		}
	}
	return found
}

// chains are the one for all Services, and one a frontend. Who is sent back from them is served by the proxy.
func (r *Rules) chains(all []services.Translation, second bool) []iptables.Chain {
	entry := iptables.Chain{Name: toServices, End: iptables.Return}
	for _, group := range groups(r.egress, second) {
		for _, each := range group.pods.prefixes() {
			entry.Rules = append(entry.Rules, iptables.Rule{Source: each, Verdict: iptables.Return})
		}
	}
	var chains []iptables.Chain
	for i, each := range all {
		one := iptables.Chain{Name: fmt.Sprintf("service%d", i), Rules: translation(each), End: iptables.Return}
		chains = append(chains, one)
		port := each.Frontend.Port()
		entry.Rules = append(entry.Rules, iptables.Rule{
			Destination: alone(each.Frontend.Addr()), Protocol: unix.IPPROTO_TCP, Ports: &iptables.Ports{First: port, Last: port}, Jump: one.Name,
		})
	}
	return append(chains, entry)
}

// translation sends clients to their endpoints in turn. An endpoint that is a client itself would get answers from itself.
func translation(of services.Translation) []iptables.Rule {
	var rules []iptables.Rule
	for _, each := range of.Endpoints() {
		rules = append(rules, iptables.Rule{Source: alone(each.Addr()), Verdict: iptables.Return})
	}
	for _, choice := range of.Choices {
		for i, endpoint := range choice.Endpoints {
			rules = append(rules, iptables.Rule{
				Source: choice.Clients, Protocol: unix.IPPROTO_TCP, Every: uint32(len(choice.Endpoints) - i), To: endpoint,
			})
		}
		if len(choice.Endpoints) == 0 && choice.Clients != (netip.Prefix{}) {
			rules = append(rules, iptables.Rule{Source: choice.Clients, Verdict: iptables.Return})
		}
	}
	return rules
}
