package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
	"sandkube/node/iptables"
)

// passes asks a table about the first packet of a connection, as a kernel would.
func passes(table iptables.Table, from, to netip.Addr, protocol uint8, port uint16) bool {
	chains := map[string]iptables.Chain{"": table.Builtin[iptables.Prerouting]}
	for _, each := range table.Chains {
		chains[each.Name] = each
	}
	var walk func(name string) iptables.Verdict
	walk = func(name string) iptables.Verdict {
		for _, rule := range chains[name].Rules {
			if rule.Source.IsValid() && !rule.Source.Contains(from) || rule.Destination.IsValid() && !rule.Destination.Contains(to) ||
				rule.Protocol != 0 && rule.Protocol != protocol ||
				rule.Ports != nil && (port < rule.Ports.First || rule.Ports.Last < port) ||
				rule.Flags != nil && iptables.SYN&rule.Flags.Mask != rule.Flags.Set {
				continue
			}
			verdict := rule.Verdict
			if rule.Jump != "" {
				if verdict = walk(rule.Jump); verdict == iptables.Return {
					continue
				}
			}
			return verdict
		}
		return chains[name].End
	}
	return walk("") == iptables.Accept
}

func TestNothingIsFilteredWithoutAPolicy(t *testing.T) {
	table := Compile(world()).table(cluster.Default)
	if len(table.Chains) != 0 || len(table.Builtin[iptables.Prerouting].Rules) != 0 {
		t.Errorf("table %v", table)
	}
}

// The proxy judges what goes to a Service; what goes to the node itself the filter does.
func TestServicesAreForTheProxy(t *testing.T) {
	table := Compile(world(policyOf(t, "a", `{podSelector: {}, policyTypes: [Ingress, Egress]}`))).table(cluster.Default)
	for place, want := range map[string]bool{
		"10.96.0.1:443": true, "10.97.0.1:80": true, "10.88.0.1:30080": true, "10.88.0.1:6443": false, "10.96.0.10:53": false, "10.88.0.4:80": false,
	} {
		to := netip.MustParseAddrPort(place)
		if got := passes(table, webPod.Address, to.Addr(), unix.IPPROTO_TCP, to.Port()); got != want {
			t.Errorf("%s passes: %v", place, got)
		}
	}
}

// ICMP has no ports, and passes where a rule names none.
func TestICMP(t *testing.T) {
	for spec, want := range map[string]bool{
		`{podSelector: {}}`: false,
		`{podSelector: {}, ingress: [{ports: [{port: 1, endPort: 65535}, {protocol: UDP}]}]}`: false,
		`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`:                           true,
	} {
		table := Compile(world(policyOf(t, "a", spec))).table(cluster.Default)
		if got := passes(table, client.Address, webPod.Address, unix.IPPROTO_ICMP, 0); got != want {
			t.Errorf("%s: passes: %v", spec, got)
		}
	}
}

// Pods that are permitted the same share a chain, and neighbours a rule: the kernel's room for a table is small.
func TestPodsShareChains(t *testing.T) {
	all := world(policyOf(t, "many", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}`))
	for i := range 64 {
		all.Pods = append(all.Pods, testPod("many", fmt.Sprintf("10.88.0.%d", 64+i), "app=x"))
	}
	table := Compile(all).table(cluster.Default)
	if len(table.Chains) != 2 || len(table.Chains[0].Rules) != 1 || len(table.Chains[1].Rules) != 1 {
		t.Errorf("%v", table.Chains)
	}
}
