// Package iptables replaces a table of the kernel's packet filter of IPv4 or IPv6, by the interface that iptables itself used
// before nftables (uapi linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h): the one that gVisor has, and
// Linux has as well. A table is replaced as a whole or not at all.
package iptables

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Hook is a place in a packet's way.
type Hook int

// Hooks, as numbered by the kernel (NF_INET_PRE_ROUTING and those that follow).
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
	hooks
)

// Verdict is what becomes of a packet.
type Verdict int32

// Verdicts, as the kernel writes them in a standard target: -1 less what netfilter calls them.
const (
	Drop   Verdict = -1 - 0
	Accept Verdict = -1 - 1
	Return Verdict = -1 - 4 // to the chain that jumped here
)

// Ports are a range of them.
type Ports struct{ First, Last uint16 }

// Flags are those of TCP: of Mask those of Set are there, and no others.
type Flags struct{ Mask, Set uint8 }

// Flags of TCP that rules speak of.
const (
	SYN uint8 = 0x02
	ACK uint8 = 0x10
)

// Rule is for packets that are as all of its fields say; what is left out says nothing. They go to the chain Jump, or are
// translated, or the verdict is theirs.
type Rule struct {
	Source, Destination netip.Prefix
	Protocol            uint8
	Ports               *Ports         // the destination's, of TCP or UDP
	Flags               *Flags         // of TCP
	Every               uint32         // of so many packets that are like this the first; all where it is 0 or 1
	To                  netip.AddrPort // the destination that they get, with all that follow of the connection (DNAT)
	Jump                string
	Verdict             Verdict
	track               bool // it has connections be tracked, and is for none
}

// tracked is the table with a rule that has the kernel track connections: Linux does in a network namespace only if some rule
// cannot do without, and asks nobody about packets that it does not track. In gVisor it always does.
func (t Table) tracked() Table {
	chain := t.Builtin[Prerouting]
	chain.Rules = append([]Rule{{Source: t.layout().nobody, track: true}}, chain.Rules...)
	t.Builtin = map[Hook]Chain{Prerouting: chain}
	return t
}

// Chain is rules, the first that fits counts, and the verdict on what none fits.
type Chain struct {
	Name  string
	Rules []Rule
	End   Verdict
}

// Table is one of the kernel's, of IPv6 if it says so. What no chain of Builtin is for is accepted.
type Table struct {
	Name    string
	IPv6    bool
	Hooks   []Hook // that it has
	Builtin map[Hook]Chain
	Chains  []Chain
}

// NAT is the table of translations, of which a kernel asks only for the first packet of a connection that it tracks, in
// whichever direction: what it drops is a connection, and what it lets pass has its answers.
func NAT(prerouting Chain, chains ...Chain) Table {
	return Table{
		Name:    "nat",
		Hooks:   []Hook{Prerouting, Input, Output, Postrouting},
		Builtin: map[Hook]Chain{Prerouting: prerouting},
		Chains:  chains,
	}
}

// validate says what no kernel could make sense of.
func (t Table) validate() error {
	names := map[string]bool{}
	for _, each := range t.Chains {
		if each.Name == "" || len(each.Name) >= nameSize || names[each.Name] {
			return fmt.Errorf("chain %q: names are short, and different", each.Name)
		}
		names[each.Name] = true
	}
	for _, chain := range t.all() {
		for _, rule := range chain.Rules {
			if rule.Jump != "" && !names[rule.Jump] {
				return fmt.Errorf("chain %s jumps to %s, which is not there", chain.Name, rule.Jump)
			}
			if rule.Flags != nil && rule.Protocol != unix.IPPROTO_TCP {
				return fmt.Errorf("chain %s: flags are TCP's", chain.Name)
			}
			if rule.To.IsValid() && (rule.Jump != "" || rule.Protocol == 0 || rule.To.Addr().Is6() != t.IPv6) {
				return fmt.Errorf("chain %s: %s is a destination of a protocol, of this family, and all that is done", chain.Name, rule.To)
			}
			if rule.Ports != nil && rule.Protocol != unix.IPPROTO_TCP && rule.Protocol != unix.IPPROTO_UDP {
				return fmt.Errorf("chain %s: ports are TCP's and UDP's", chain.Name)
			}
		}
	}
	return nil
}

// all are the chains in the order that they are written in: those of hooks, then the others.
func (t Table) all() []Chain {
	var all []Chain
	for _, hook := range t.Hooks {
		chain, found := t.Builtin[hook]
		if !found {
			chain = Chain{End: Accept}
		}
		all = append(all, chain)
	}
	return append(all, t.Chains...)
}
