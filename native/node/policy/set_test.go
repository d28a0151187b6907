package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestPrefixes(t *testing.T) {
	p := netip.MustParsePrefix
	for want, made := range map[string]set{
		"[]":                                  nil,
		"[0.0.0.0/0]":                         setOf(p("0.0.0.0/0")),
		"[10.0.0.0/24]":                       setOf(p("10.0.0.128/25"), p("10.0.0.0/25"), p("10.0.0.7/32")),
		"[255.255.255.254/31]":                setOf(p("255.255.255.255/32"), p("255.255.255.254/32")),
		"[10.0.0.1/32 10.0.0.2/31]":           setOf(p("10.0.0.0/30")).without(p("10.0.0.0/32")),
		"[0.0.0.0/1 128.0.0.0/2 192.0.0.0/3]": setOf(p("0.0.0.0/0")).without(p("224.0.0.0/3")),
		"[10.0.0.0/8 fd00::1/128 fd00::2/127 fd00::4/126]": setOf(p("fd00::4/126"), p("10.0.0.0/8"), p("fd00::/126")).
			without(p("fd00::/128")).without(p("0.0.0.0/32")),
		"[255.255.255.255/32 ::/0]": setOf(p("::/0"), p("255.255.255.255/32"), p("ffff::/16")),
	} {
		if got := fmt.Sprint(made.prefixes()); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Compared with one address after the other.
func TestSets(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var made set
		want := map[netip.Addr]bool{}
		for range 12 {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(chance.IntN(256))}), 24+chance.IntN(9))
			adds := chance.IntN(3) > 0
			if adds {
				made = made.with(setOf(prefix))
			} else {
				made = made.without(prefix)
			}
			for i := range 256 {
				if one := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}); prefix.Masked().Contains(one) {
					want[one] = adds
				}
			}
		}
		for i := range 256 {
			one := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			if made.has(one) != want[one] || setOf(made.prefixes()...).has(one) != want[one] {
				t.Fatalf("%v: %v, want %v", one, made, want[one])
			}
		}
	}
	if one := netip.MustParseAddr("::1"); !everywhere.has(one) || everywhere.of(false).has(one) || !everywhere.of(true).has(one) {
		t.Error("an address of IPv6")
	}
}
