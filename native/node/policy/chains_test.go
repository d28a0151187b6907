package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"sandkube/node/cluster"
	"sandkube/node/iptables"
)

// passes asks a table about the first packet of a connection, as a kernel would.
func passes(table iptables.Table, from, to netip.Addr, protocol uint8, port uint16) bool {
	verdict, _ := outcome(table, from, to, protocol, port, 0)
	return verdict == iptables.Accept
}

// outcome is what becomes of it, and where it is sent in place of where it goes, if it is the one after so many.
func outcome(table iptables.Table, from, to netip.Addr, protocol uint8, port uint16, after int) (iptables.Verdict, netip.AddrPort) {
	var sent netip.AddrPort
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
			if rule.To.IsValid() {
				if every := int(max(1, rule.Every)); after%every > 0 {
					after -= 1 + after/every // those that came here and went
					continue
				}
				sent = rule.To
				return iptables.Accept
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
	return walk(""), sent
}

func TestNothingIsFilteredWithoutAPolicy(t *testing.T) {
	table := Compile(world()).table(cluster.Default, nil)
	if len(table.Chains) != 0 || len(table.Builtin[iptables.Prerouting].Rules) != 0 {
		t.Errorf("table %v", table)
	}
}

// The proxy judges what goes to a Service; what goes to the node itself the filter does.
func TestServicesAreForTheProxy(t *testing.T) {
	table := Compile(world(policyOf(t, "a", `{podSelector: {}, policyTypes: [Ingress, Egress]}`))).table(cluster.Default, nil)
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
		table := Compile(world(policyOf(t, "a", spec))).table(cluster.Default, nil)
		if got := passes(table, client.Address, webPod.Address, unix.IPPROTO_ICMP, 0); got != want {
			t.Errorf("%s: passes: %v", spec, got)
		}
	}
}

// Each family has a table, by which pods are isolated alike; what finds neighbours passes in any case.
func TestTablesOfTwoFamilies(t *testing.T) {
	dual := cluster.Default.With(cluster.DefaultSecond)
	dual.Nodes = 2
	all := world(policyOf(t, "a", `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: "fd00:10:88::/125"}}]}]}`))
	all.Node = nodeOf(dual)
	for _, each := range slices.Clone(all.Pods[:4]) {
		second := dual.Second.Pods.Addr().As16()
		second[15] = each.Address.As4()[3]
		each.Address = netip.AddrFrom16(second)
		all.Pods = append(all.Pods, each)
	}
	rules := Compile(all)
	tables := rules.tables(dual, nil)
	if len(tables) != 2 || tables[0].IPv6 || !tables[1].IPv6 || len(tables[0].Chains) != 2 || len(tables[1].Chains) != 2 {
		t.Fatalf("%+v", tables)
	}
	for _, each := range []struct {
		from, to string
		protocol uint8
		want     bool
	}{
		{"fd00:10:88::3", "fd00:10:88::2", unix.IPPROTO_TCP, true},
		{"fd00:10:88::4", "fd00:10:88::2", unix.IPPROTO_TCP, true}, // by its block
		{"fd00:10:88::9", "fd00:10:88::2", unix.IPPROTO_TCP, false},
		{"fd00:10:88::9", "fd00:10:88::3", unix.IPPROTO_TCP, true},
		{"fd00:10:88::2", "ff02::1:ff00:1", unix.IPPROTO_ICMPV6, true},
		{"fd00:10:88:1::2", "fd00:10:88:1::1", unix.IPPROTO_ICMPV6, true},
		{"fd00:10:88::9", "fd00:10:96::7", unix.IPPROTO_TCP, true},
	} {
		from, to := netip.MustParseAddr(each.from), netip.MustParseAddr(each.to)
		if got := passes(tables[1], from, to, each.protocol, 80); got != each.want {
			t.Errorf("%v passes: %v", each, got)
		}
		if each.protocol == unix.IPPROTO_TCP && to.String() != "fd00:10:96::7" && rules.Allows(from, to, v1.ProtocolTCP, 80) != each.want {
			t.Errorf("%v is allowed: %v", each, !each.want)
		}
	}
	if !rules.Allows(dual.Second.NodeAddress, netip.MustParseAddr("fd00:10:88::2"), v1.ProtocolTCP, 80) {
		t.Error("the node does not pass")
	}
}

// Pods that are permitted the same share a chain, and neighbours a rule: the kernel's room for a table is small.
func TestPodsShareChains(t *testing.T) {
	all := world(policyOf(t, "many", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}`))
	for i := range 64 {
		all.Pods = append(all.Pods, testPod("many", fmt.Sprintf("10.88.0.%d", 64+i), "app=x"))
	}
	table := Compile(all).table(cluster.Default, nil)
	if len(table.Chains) != 2 || len(table.Chains[0].Rules) != 1 || len(table.Chains[1].Rules) != 1 {
		t.Errorf("%v", table.Chains)
	}
}
