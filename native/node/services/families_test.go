package services

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"sandkube/node/cluster"
)

// dualNode is runsc in a cluster of dual stack.
func dualNode() Node { return On(cluster.Default.With(cluster.DefaultSecond)) }

func ofSecond(slice *discovery.EndpointSlice) *discovery.EndpointSlice {
	slice.AddressType = discovery.AddressTypeIPv6
	return slice
}

func withAddresses(addresses ...string) func(*v1.ServiceSpec) {
	return func(s *v1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = addresses[0], addresses }
}

// Each family has frontends, endpoints and node ports of its own.
func TestServicesOfTwoFamilies(t *testing.T) {
	slices4 := testSlice(v1.ProtocolTCP, 8080, endpoint("10.88.0.2"))
	slices6 := ofSecond(testSlice(v1.ProtocolTCP, 8080, endpoint("fd00:10:88::2")))
	nodePort := func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }
	first := rule{"default/web:80/TCP", at(v1.ProtocolTCP, "10.96.0.7:80", "10.88.0.1:30080", "127.0.0.1:30080"), targets("10.88.0.2:8080"), 0, nil, nil}
	second := rule{
		"default/web:80/TCP over IPv6", at(v1.ProtocolTCP, "[fd00:10:96::7]:80", "[fd00:10:88::1]:30080"), targets("[fd00:10:88::2]:8080"), 0, nil, nil,
	}
	for _, each := range []struct {
		addresses []string
		want      []rule
	}{
		{[]string{"10.96.0.7"}, []rule{first}},
		{[]string{"fd00:10:96::7"}, []rule{second}},
		{[]string{"fd00:10:96::7", "10.96.0.7"}, []rule{first, second}},
		{[]string{"None"}, nil},
	} {
		service := testService("", nodePort, withAddresses(each.addresses...))
		got := desired([]*v1.Service{service}, []*discovery.EndpointSlice{slices4, slices6}, nil, dualNode())
		if !reflect.DeepEqual(got.Rules, each.want) || len(got.Refused) > 0 {
			t.Errorf("%v: rules\n%+v, want\n%+v; %v", each.addresses, got.Rules, each.want, got.Refused)
		}
	}
	got := desired([]*v1.Service{testService("", withAddresses("fd00:10:96::7"))}, []*discovery.EndpointSlice{slices6}, nil, testNode)
	if len(got.Rules)+len(got.Addresses) > 0 {
		t.Errorf("a cluster of IPv4 serves %+v", got)
	}
}

func TestAddressesOfTheSecondFamily(t *testing.T) {
	service := balanced("fd00:10:97::1", func(s *v1.Service) {
		withAddresses("fd00:10:96::7")(&s.Spec)
		s.Spec.ExternalIPs = []string{"fd00:10:88::9", "2001:db8::1", "192.0.2.1"}
		s.Spec.LoadBalancerSourceRanges = []string{"fd00:10:88::/64"}
	})
	got := desired([]*v1.Service{service}, []*discovery.EndpointSlice{ofSecond(testSlice(v1.ProtocolTCP, 8080, endpoint("fd00:10:88::2")))}, nil, dualNode())
	want := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fd00:10:96::7"), netip.MustParseAddr("fd00:10:97::1")}
	if !slices.Equal(got.Addresses, want) {
		t.Errorf("addresses %v", got.Addresses)
	}
	refused(t, got, "default/web: external address fd00:10:88::9 is of a range of the cluster")
	if by := servedBy(got, "[fd00:10:97::1]:80"); by != "default/web:80/TCP over IPv6 of the load balancer" {
		t.Errorf("the load balancer's address is served by %q", by)
	}
}

func TestHostPortsOfTwoFamilies(t *testing.T) {
	pod := func(host string) hostPorts {
		one := hostPorts{ContainerID: "a", Address: netip.MustParseAddr("10.88.0.2"), Second: netip.MustParseAddr("fd00:10:88::2")}
		one.Mappings = append(one.Mappings, mapping{8080, 80, "tcp", host})
		return one
	}
	for host, want := range map[string][]frontend{
		"":              at(v1.ProtocolTCP, "10.88.0.1:8080", "127.0.0.1:8080", "[fd00:10:88::1]:8080"),
		"::":            at(v1.ProtocolTCP, "[fd00:10:88::1]:8080"),
		"0.0.0.0":       at(v1.ProtocolTCP, "10.88.0.1:8080", "127.0.0.1:8080"),
		"fd00:10:88::1": at(v1.ProtocolTCP, "[fd00:10:88::1]:8080"),
	} {
		got := desired(nil, nil, []hostPorts{pod(host)}, dualNode())
		var places []frontend
		for _, each := range got.Rules {
			places = append(places, each.Frontends...)
			for _, place := range each.Frontends {
				if place.Address.Addr().Is6() != each.Endpoints[0].Addr().Is6() {
					t.Errorf("%q: %v leads to %v", host, place, each.Endpoints)
				}
			}
		}
		if !slices.Equal(places, want) || len(got.Refused) > 0 {
			t.Errorf("%q: %v; %v", host, places, got.Refused)
		}
	}
}

// Sockets of both kinds: a Service on ::1, since Linux has no other address of its own there.
func TestTheSecondFamilyIsServed(t *testing.T) {
	if free, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	} else {
		free.Close()
	}
	serveTCP(t, "::1", sayName("six"))
	serveUDP(t, "::1", "six")
	f := start(t, func(p *proxy) { p.node = dualNode() })
	f.createService(testService("", withAddresses("::1"), func(s *v1.ServiceSpec) {
		s.Ports = []v1.ServicePort{{Name: "tcp", Port: 48080, Protocol: v1.ProtocolTCP}, {Name: "udp", Port: 48080, Protocol: v1.ProtocolUDP}}
	}))
	slice := ofSecond(testSlice(v1.ProtocolTCP, 8080, endpoint("::1")))
	slice.Ports[0].Name = ptr("tcp")
	slice.Ports = append(slice.Ports, discovery.EndpointPort{Name: ptr("udp"), Protocol: ptr(v1.ProtocolUDP), Port: ptr(int32(8080))})
	f.createSlice(slice)
	eventually(t, "TCP over IPv6", func() bool {
		conn, err := net.Dial("tcp6", "[::1]:48080")
		if err != nil {
			return false
		}
		defer conn.Close()
		buffer := make([]byte, 10)
		length, _ := conn.Read(buffer)
		return string(buffer[:length]) == "six"
	})
	conn, err := net.Dial("udp6", "[::1]:48080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 10)
	if length, err := conn.Read(buffer); err != nil || string(buffer[:length]) != "six:a" {
		t.Errorf("%q, %v", buffer[:length], err)
	}
}
