package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestDefaultIsOfAPiece(t *testing.T) {
	c := Default
	if !c.NodeAddress.Is4() || !c.NodeAddress.IsPrivate() || !c.Pods.Contains(c.NodeAddress) || c.Pods.Masked() != c.Pods {
		t.Errorf("node %s, pods %s", c.NodeAddress, c.Pods)
	}
	if c.Services.Masked() != c.Services || c.Services.Overlaps(c.Pods) {
		t.Errorf("Services %s, pods %s", c.Services, c.Pods)
	}
	if c.LoadBalancers.Masked() != c.LoadBalancers || c.LoadBalancers.Overlaps(c.Pods) || c.LoadBalancers.Overlaps(c.Services) {
		t.Errorf("load balancers %s, Services %s, pods %s", c.LoadBalancers, c.Services, c.Pods)
	}
	if c.API != c.Services.Addr().Next() {
		t.Errorf("the API server takes %s, not %s", c.Services.Addr().Next(), c.API)
	}
	if !c.Services.Contains(c.DNS) || c.DNS == c.API {
		t.Errorf("DNS %s", c.DNS)
	}
	if c.Server() != "https://127.0.0.1:6443" {
		t.Error(c.Server())
	}
}

func TestMembersAreSideBySide(t *testing.T) {
	c := Default.In(netip.MustParsePrefix("10.88.255.192/26"), Default.Services)
	c.Nodes = 3
	var got []string
	for _, each := range c.Members() {
		got = append(got, fmt.Sprintf("%s%s %s %s %s %s", each.NodeName, each.Suffix(), each.Pods, each.NodeAddress, each.Cgroup(), each.API))
	}
	want := []string{
		"runsc 10.88.255.192/26 10.88.255.193 / 10.96.0.1",
		"runsc-2-2 10.89.0.0/26 10.89.0.1 /nodes/runsc-2 10.96.0.1",
		"runsc-3-3 10.89.0.64/26 10.89.0.65 /nodes/runsc-3 10.96.0.1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if alone := Default.Members(); len(alone) != 1 || alone[0] != Default {
		t.Errorf("one node: %v", alone)
	}
}

func TestTwoFamilies(t *testing.T) {
	c := Default.With(DefaultSecond)
	c.Nodes = 2
	if Default.Dual() || !c.Dual() || len(Default.NodeAddresses()) != 1 {
		t.Errorf("%+v", c)
	}
	var got []string
	for _, each := range c.Members() {
		second := each.InSecond()
		if second.Dual() || second.API.IsValid() || second.DNS.IsValid() || second.NodeName != each.NodeName {
			t.Errorf("%+v", second)
		}
		got = append(got, fmt.Sprint(each.NodeAddresses(), second.Pods, second.NodeAddress, second.Services, second.LoadBalancers))
	}
	want := []string{
		"[10.88.0.1 fd00:10:88::1] fd00:10:88::/64 fd00:10:88::1 fd00:10:96::/112 fd00:10:97::/120",
		"[10.88.1.1 fd00:10:88:1::1] fd00:10:88:1::/64 fd00:10:88:1::1 fd00:10:96::/112 fd00:10:97::/120",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, each := range [][2]netip.Prefix{{c.Second.Pods, c.Second.Services}, {c.Second.Pods, c.Second.LoadBalancers}, {c.Second.Services, c.Second.LoadBalancers}} {
		if each[0].Overlaps(each[1]) || !each[0].Addr().IsPrivate() {
			t.Errorf("%v", each)
		}
	}
}

func TestWhatABoundLeaves(t *testing.T) {
	const total = 8 << 30
	for memory, usable := range map[uint64]uint64{0: total, 2 << 30: 2<<30 - Around, 16 << 30: total, 1 << 20: total} {
		c := Default
		c.Memory = memory
		if got := c.Usable(total); got != usable {
			t.Errorf("%d: usable are %d, not %d", memory, got, usable)
		}
		if got := c.Spare(total); got != total-usable+50<<20 {
			t.Errorf("%d: %d are to be spared", memory, got)
		}
	}
}
