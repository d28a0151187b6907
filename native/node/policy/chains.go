package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"sandkube/node/cluster"
	"sandkube/node/iptables"
	"sandkube/node/services"
)

// policies is the chain that asks what the pods at both ends are permitted.
const policies = "policy"

// numbers of the protocols that ports have; the kernels' filters look into the first two.
var numbers = map[v1.Protocol]uint8{v1.ProtocolTCP: unix.IPPROTO_TCP, v1.ProtocolUDP: unix.IPPROTO_UDP, v1.ProtocolSCTP: unix.IPPROTO_SCTP}

// nodePorts are those that Services have on the node's address, unless the API server is told otherwise.
var nodePorts = iptables.Ports{First: 30000, Last: 32767}

// tables are those of each family that the cluster has.
func (r *Rules) tables(of cluster.Cluster, translations []services.Translation) []iptables.Table {
	all := []iptables.Table{r.table(of, translations)}
	if of.Dual() {
		second := r.table(of.InSecond(), translations)
		second.IPv6 = true
		all = append(all, second)
	}
	return all
}

// table is what the packet filter of one family is to do about the rules. It is the one that sees the first packet of a connection, so
// answers need no rule. Of TCP only packets that open a connection are judged: connections that stand when the first table
// comes, which the kernel has not tracked until then, go on. What goes to a Service is for the proxy to judge, but for what is
// translated.
func (r *Rules) table(of cluster.Cluster, translations []services.Translation) iptables.Table {
	second := of.NodeAddress.Is6()
	first := iptables.Chain{End: iptables.Accept}
	var chains []iptables.Chain
	if all := r.translated(translations, second); len(all) > 0 {
		first.Rules = append(first.Rules, opening)
		chains = r.chains(all, second)
	}
	if len(r.ingress)+len(r.egress) > 0 {
		first.Rules = append(first.Rules, entry(of)...)
		chains = append(chains, r.judging(second)...)
	}
	return iptables.NAT(first, chains...)
}

// judging is the chain that asks what the pods at both ends are permitted, and those that it jumps to.
func (r *Rules) judging(second bool) []iptables.Chain {
	judged := iptables.Chain{Name: policies, End: iptables.Return}
	var chains []iptables.Chain
	for i, group := range groups(r.egress, second) {
		chain := iptables.Chain{Name: fmt.Sprintf("from%d", i), End: iptables.Drop}
		chain.Rules = group.permits.rules(second, func(one *iptables.Rule, peer netip.Prefix) { one.Destination = peer })
		chains = append(chains, chain)
		for _, each := range group.pods.prefixes() {
			judged.Rules = append(judged.Rules, iptables.Rule{Source: each, Jump: chain.Name})
		}
	}
	for i, group := range groups(r.ingress, second) {
		chain := iptables.Chain{Name: fmt.Sprintf("to%d", i), End: iptables.Drop}
		chain.Rules = group.permits.rules(second, func(one *iptables.Rule, peer netip.Prefix) { one.Source = peer })
		chains = append(chains, chain)
		for _, each := range group.pods.prefixes() {
			judged.Rules = append(judged.Rules, iptables.Rule{Destination: each, Jump: chain.Name})
		}
	}
	return append(chains, judged)
}

// entry says which of all packets from pods are judged.
func entry(of cluster.Cluster) []iptables.Rule {
	flags := func(mask, set uint8) iptables.Rule {
		return iptables.Rule{Protocol: unix.IPPROTO_TCP, Flags: &iptables.Flags{Mask: mask, Set: set}, Verdict: iptables.Accept}
	}
	to := func(destination netip.Prefix) iptables.Rule {
		return iptables.Rule{Destination: destination, Verdict: iptables.Accept}
	}
	rules := []iptables.Rule{
		flags(iptables.ACK, iptables.ACK),
		flags(iptables.SYN, 0),
	}
	if of.DNS.IsValid() {
		rules = append(rules, iptables.Rule{Destination: alone(of.DNS), Jump: policies})
	}
	rules = append(rules, to(of.Services), to(of.LoadBalancers))
	if of.NodeAddress.Is6() {
		rules = append(rules, neighbours(of)...)
	}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		one := to(alone(of.NodeAddress))
		one.Protocol, one.Ports = protocol, &nodePorts
		rules = append(rules, one)
	}
	return append(rules, iptables.Rule{Jump: policies})
}

// neighbours lets pass what pods find the node by, and are found by: questions go to groups, answers to the node.
func neighbours(of cluster.Cluster) []iptables.Rule {
	rules := []iptables.Rule{{Destination: netip.MustParsePrefix("ff00::/8"), Verdict: iptables.Accept}}
	own := []netip.Prefix{netip.MustParsePrefix("fe80::/10")}
	for _, each := range of.Members() {
		own = append(own, alone(each.NodeAddress))
	}
	for _, each := range own {
		rules = append(rules, iptables.Rule{Destination: each, Protocol: unix.IPPROTO_ICMPV6, Verdict: iptables.Accept})
	}
	return rules
}

func alone(address netip.Addr) netip.Prefix { return netip.PrefixFrom(address, address.BitLen()) }

// group is pods that are permitted the same.
type group struct {
	permits permits
	pods    set
}

// groups are those of a family, in the order of their first pods.
func groups(isolated map[netip.Addr]permits, second bool) []group {
	alike := map[string]set{}
	like := map[string]permits{}
	for address, each := range isolated {
		if address.Is6() != second {
			continue
		}
		key := each.String()
		alike[key], like[key] = alike[key].with(setOf(alone(address))), each
	}
	var found []group
	for key, pods := range alike {
		found = append(found, group{like[key], pods})
	}
	slices.SortFunc(found, func(a, b group) int {
		return a.pods[0].first.Compare(b.pods[0].first)
	})
	return found
}

// String is the same for what permits the same.
func (p permits) String() string {
	var text strings.Builder
	for _, each := range p {
		fmt.Fprintln(&text, each.protocol, each.first, each.last, each.peers.prefixes())
	}
	return text.String()
}

// rules let pass what is permitted. No filter looks into SCTP: of that a port is not to be told from another, and only all of
// it may pass.
func (p permits) rules(second bool, peers func(one *iptables.Rule, peer netip.Prefix)) []iptables.Rule {
	var rules []iptables.Rule
	for _, each := range p {
		all := each.first == 0 && each.last == 0xffff
		if each.protocol == v1.ProtocolSCTP && !all {
			continue
		}
		for _, peer := range each.peers.of(second).prefixes() {
			one := iptables.Rule{Protocol: numbers[each.protocol], Verdict: iptables.Return}
			if each.span != everything && !all {
				one.Ports = &iptables.Ports{First: each.first, Last: each.last}
			}
			peers(&one, peer)
			rules = append(rules, one)
		}
	}
	slices.SortStableFunc(rules, func(a, b iptables.Rule) int { return cmp.Compare(a.Protocol, b.Protocol) })
	return rules
}
