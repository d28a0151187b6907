package iptables

import (
	"bytes"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func sample() Table {
	inner := Chain{Name: "inner", End: Drop, Rules: []Rule{
		{Destination: netip.MustParsePrefix("10.1.0.0/16"), Protocol: unix.IPPROTO_TCP, Ports: &Ports{80, 90}, Verdict: Return},
		{Protocol: unix.IPPROTO_UDP, Ports: &Ports{53, 53}, Verdict: Accept},
	}}
	outer := Chain{Name: "outer", End: Return, Rules: []Rule{
		{Source: netip.MustParsePrefix("10.88.0.7/32"), Jump: "inner"},
		{Protocol: unix.IPPROTO_TCP, Every: 2, To: netip.MustParseAddrPort("10.88.0.8:8080")},
		{Protocol: unix.IPPROTO_TCP, Ports: &Ports{80, 80}, Every: 1, To: netip.MustParseAddrPort("10.88.0.9:8080")},
	}}
	return NAT(Chain{End: Accept, Rules: []Rule{
		{Protocol: unix.IPPROTO_TCP, Flags: &Flags{Mask: SYN | ACK, Set: SYN}, Jump: "outer"},
	}}, inner, outer)
}

// `-A inner -p tcp -d 10.1.0.0/16 --dport 80:90 -j RETURN`, laid out by hand from ip_tables.h.
func TestARule(t *testing.T) {
	got := sample().Chains[0].Rules[0].encode(four, int32(Return))
	want := make([]byte, 200)
	copy(want[4:], []byte{10, 1, 0, 0})
	copy(want[12:], []byte{255, 255, 0, 0})
	want[80] = 6
	want[88], want[90] = 160, 200
	copy(want[112:], "\x30\x00tcp")
	copy(want[144:], []byte{0, 0, 255, 255, 80, 0, 90, 0})
	want[160] = 40
	copy(want[192:], []byte{251, 255, 255, 255})
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
}

// `-A inner -p tcp -d fd00:1::/24 --dport 80:90 -j RETURN`, laid out by hand from ip6_tables.h.
func TestARuleOfIPv6(t *testing.T) {
	rule := Rule{Destination: netip.MustParsePrefix("fd00:1::/24"), Protocol: unix.IPPROTO_TCP, Ports: &Ports{80, 90}, Verdict: Return}
	want := make([]byte, 256)
	copy(want[16:], []byte{0xfd, 0, 0})
	copy(want[48:], []byte{255, 255, 255})
	want[128], want[131] = 6, 1
	want[140], want[143] = 216, 1
	copy(want[168:], "\x30\x00tcp")
	copy(want[200:], []byte{0, 0, 255, 255, 80, 0, 90, 0})
	want[216] = 40
	copy(want[248:], []byte{251, 255, 255, 255})
	if got := rule.encode(six, int32(Return)); !bytes.Equal(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
}

// `-A outer -p tcp -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.88.0.8:8080`, by xt_statistic.h and nf_nat.h.
func TestATranslation(t *testing.T) {
	got := Rule{Protocol: unix.IPPROTO_TCP, Every: 3, To: netip.MustParseAddrPort("10.88.0.8:8080")}.encode(four, 0)
	want := make([]byte, 224)
	want[80] = 6
	want[88], want[90] = 168, 224
	copy(want[112:], "\x38\x00statistic")
	want[144], want[148], want[156] = 1, 2, 2
	copy(want[168:], "\x38\x00DNAT")
	copy(want[200:], []byte{1, 0, 0, 0, 3, 0, 0, 0, 10, 88, 0, 8, 10, 88, 0, 8, 0x1f, 0x90, 0x1f, 0x90})
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
}

// sample6 is the same of IPv6.
func sample6() Table {
	table := sample()
	table.IPv6 = true
	table.Chains[0].Rules[0].Destination = netip.MustParsePrefix("fd00:1::/32")
	outer := table.Chains[1].Rules
	outer[0].Source = netip.MustParsePrefix("fd00:10:88::7/128")
	for i := range outer[1:] {
		outer[1+i].To = netip.AddrPortFrom(netip.MustParseAddr("fd00:10:88::8"), 8080)
	}
	return table
}

// Every offset leads to an entry, and every jump to one that follows a name.
func TestOffsets(t *testing.T) {
	offsets(t, sample())
	offsets(t, sample6())
}

func offsets(t *testing.T, table Table) {
	t.Helper()
	made, as := table.encode(), table.layout()
	known := map[uint32]bool{}
	var count uint32
	for at := 0; at < len(made.entries); at += int(native.Uint16(made.entries[at+as.target+2:])) {
		known[uint32(at)] = true
		count++
	}
	if count != made.count || count != 15 {
		t.Errorf("%d entries, said to be %d", count, made.count)
	}
	for _, hook := range []Hook{Prerouting, Input, Output, Postrouting} {
		if !known[made.starts[hook]] || !known[made.underflow[hook]] || made.hooks&(1<<hook) == 0 {
			t.Errorf("hook %d: %d, %d", hook, made.starts[hook], made.underflow[hook])
		}
	}
	if made.hooks&(1<<Forward) != 0 {
		t.Error("nat has no FORWARD")
	}
	for name, start := range table.offsets() {
		head := made.entries[int(start)-as.entry-errorSize:]
		if !known[uint32(start)] || !bytes.HasPrefix(head[as.entry+32:], []byte(name+"\x00")) {
			t.Errorf("%s does not begin at %d", name, start)
		}
	}
}

func TestWhatMakesNoSense(t *testing.T) {
	for said, chain := range map[string]Chain{
		"is not there": {Rules: []Rule{{Jump: "nowhere"}}},
		"are TCP's":    {Rules: []Rule{{Protocol: unix.IPPROTO_SCTP, Ports: &Ports{1, 2}}}},
		"flags":        {Rules: []Rule{{Flags: &Flags{}}}},
		"destination":  {Rules: []Rule{{Protocol: unix.IPPROTO_TCP, To: netip.MustParseAddrPort("[fd00::1]:80")}}},
	} {
		if err := NAT(chain).validate(); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
	}
	if err := NAT(Chain{}, Chain{Name: "a"}, Chain{Name: "a"}).validate(); err == nil {
		t.Error("two chains of one name")
	}
}

// The kernel checks a table before it takes it, and gives back what it has.
func TestTheKernelTakesIt(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { taken(t, sample(), NAT(Chain{End: Accept})) })
	t.Run("IPv6", func(t *testing.T) {
		empty := NAT(Chain{End: Accept})
		empty.IPv6 = true
		taken(t, sample6(), empty)
	})
}

func taken(t *testing.T, full, empty Table) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with its network
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network of its own: %v", err)
	}
	as := full.layout()
	if _, err := as.entries("nat"); errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.ENOENT) {
		t.Skipf("no iptables in this kernel: %v", err)
	}
	for _, table := range []Table{full, empty, full} {
		if err := Replace(table); err != nil {
			t.Fatal(err)
		}
		got, err := as.entries("nat")
		if err != nil {
			t.Fatal(err)
		}
		if want := table.tracked().encode().entries; !bytes.Equal(got, want) {
			t.Errorf("the kernel has\n%v, not\n%v", got, want)
		}
	}
	full.Chains[0].Rules[0].Jump = "outer" // which jumps back
	if err := Replace(full); err == nil {
		t.Error("a loop was taken")
	}
}
