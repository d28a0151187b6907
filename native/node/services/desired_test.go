package services

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](value T) *T { return &value }

// testService is a TCP Service `default/web` with one unnamed port 80.
func testService(address string, edits ...func(*v1.ServiceSpec)) *v1.Service {
	spec := v1.ServiceSpec{
		ClusterIP:  address,
		ClusterIPs: []string{address},
		Ports:      []v1.ServicePort{{Port: 80, Protocol: v1.ProtocolTCP}},
	}
	for _, edit := range edits {
		edit(&spec)
	}
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: spec}
}

// balanced is that Service with a load balancer.
func balanced(address string, edits ...func(*v1.Service)) *v1.Service {
	service := testService("10.96.0.7", func(s *v1.ServiceSpec) { s.Type = v1.ServiceTypeLoadBalancer })
	service.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: address, IPMode: ptr(v1.LoadBalancerIPModeVIP)}}
	for _, edit := range edits {
		edit(service)
	}
	return service
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// testSlice is a slice of `default/web`; an endpoint is ready unless said otherwise.
func testSlice(protocol v1.Protocol, port int32, endpoints ...discovery.Endpoint) *discovery.EndpointSlice {
	return &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: ptr(""), Protocol: &protocol, Port: &port}},
		Endpoints:   endpoints,
	}
}

func endpoint(address string) discovery.Endpoint {
	return discovery.Endpoint{Addresses: []string{address}}
}

func withConditions(address string, ready, serving, terminating bool) discovery.Endpoint {
	return discovery.Endpoint{
		Addresses:  []string{address},
		Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
	}
}

func at(protocol v1.Protocol, texts ...string) []frontend {
	var list []frontend
	for _, text := range texts {
		list = append(list, frontend{protocol, netip.MustParseAddrPort(text)})
	}
	return list
}

func targets(texts ...string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, text := range texts {
		list = append(list, netip.MustParseAddrPort(text))
	}
	return list
}

var testNode = Node{
	Name:      "runsc",
	Addresses: []netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("127.0.0.1")},
	Ranges:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("10.96.0.0/16")},
	Balanced:  netip.MustParsePrefix("10.97.0.0/24"),
	Ports:     []uint16{6443, 10250},
	Taken:     []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:443")},
}

func TestDesired(t *testing.T) {
	web := rule{
		Name:      "default/web:80/TCP",
		Frontends: at(v1.ProtocolTCP, "10.96.0.7:80"),
		Endpoints: targets("10.88.0.2:8080"),
	}
	slice := testSlice(v1.ProtocolTCP, 8080, endpoint("10.88.0.2"))
	cases := []struct {
		name      string
		service   *v1.Service
		slice     *discovery.EndpointSlice
		addresses []string
		rules     []rule
	}{
		{"cluster address", testService("10.96.0.7"), slice, []string{"10.96.0.7"}, []rule{web}},
		{"headless", testService("None"), slice, nil, nil},
		{"external name", testService("", func(s *v1.ServiceSpec) { s.Type = v1.ServiceTypeExternalName }), slice, nil, nil},
		{
			"external address and one of the node",
			testService("10.96.0.7", func(s *v1.ServiceSpec) { s.ExternalIPs = []string{"192.0.2.1", "10.88.0.1"} }),
			slice, []string{"10.96.0.7", "192.0.2.1"},
			[]rule{{web.Name, at(v1.ProtocolTCP, "10.96.0.7:80", "192.0.2.1:80", "10.88.0.1:80"), web.Endpoints, 0, nil, nil}},
		},
		{
			"node port",
			testService("10.96.0.7", func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }),
			slice, []string{"10.96.0.7"},
			[]rule{{web.Name, at(v1.ProtocolTCP, "10.96.0.7:80", "10.88.0.1:30080", "127.0.0.1:30080"), web.Endpoints, 0, nil, nil}},
		},
		{
			"load balancer",
			balanced("10.97.0.1"),
			slice, []string{"10.96.0.7", "10.97.0.1"},
			[]rule{{web.Name, at(v1.ProtocolTCP, "10.96.0.7:80", "10.97.0.1:80"), web.Endpoints, 0, nil, nil}},
		},
		{
			"load balancer that is a proxy, one with another's address, an external address of its range",
			balanced("10.96.0.8", func(s *v1.Service) {
				proxy := v1.LoadBalancerIngress{IP: "10.97.0.2", IPMode: ptr(v1.LoadBalancerIPModeProxy)}
				s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, proxy)
				s.Spec.ExternalIPs = []string{"10.97.0.3"}
			}),
			slice, []string{"10.96.0.7"}, []rule{web},
		},
		{
			"load balancer with sources",
			balanced("10.97.0.1", func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.88.0.4/30"} }),
			slice, []string{"10.96.0.7", "10.97.0.1"},
			[]rule{web, {
				web.Name + " of the load balancer", at(v1.ProtocolTCP, "10.97.0.1:80"), web.Endpoints, 0,
				prefixes("10.88.0.4/30", "10.88.0.1/32", "127.0.0.1/32", "10.97.0.1/32"), nil,
			}},
		},
		{
			"address of a load balancer that it was once",
			balanced("10.97.0.1", func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeClusterIP }),
			slice, []string{"10.96.0.7"}, []rule{web},
		},
		{
			"affinity with the default time",
			testService("10.96.0.7", func(s *v1.ServiceSpec) { s.SessionAffinity = v1.ServiceAffinityClientIP }),
			slice, []string{"10.96.0.7"},
			[]rule{{web.Name, web.Frontends, web.Endpoints, 3 * time.Hour, nil, nil}},
		},
		{
			"ready before terminating",
			testService("10.96.0.7"),
			testSlice(v1.ProtocolTCP, 8080, withConditions("10.88.0.3", false, true, true), endpoint("10.88.0.2")),
			[]string{"10.96.0.7"}, []rule{web},
		},
		{
			"terminating when none is ready",
			testService("10.96.0.7"),
			testSlice(v1.ProtocolTCP, 8080, withConditions("10.88.0.2", false, true, true), withConditions("10.88.0.3", false, false, true), withConditions("10.88.0.4", false, false, false)),
			[]string{"10.96.0.7"}, []rule{web},
		},
		{
			"slice of another protocol",
			testService("10.96.0.7"), testSlice(v1.ProtocolUDP, 8080, endpoint("10.88.0.2")),
			[]string{"10.96.0.7"}, []rule{{web.Name, web.Frontends, nil, 0, nil, nil}},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := desired([]*v1.Service{c.service}, []*discovery.EndpointSlice{c.slice}, nil, testNode)
			var addresses []string
			for _, a := range got.Addresses {
				addresses = append(addresses, a.String())
			}
			if !reflect.DeepEqual(addresses, c.addresses) {
				t.Errorf("addresses %v, want %v", addresses, c.addresses)
			}
			if !reflect.DeepEqual(got.Rules, c.rules) {
				t.Errorf("rules\n%+v, want\n%+v", got.Rules, c.rules)
			}
		})
	}
}

func TestNamedPortsOfSeveralSlices(t *testing.T) {
	service := testService("10.96.0.7", func(s *v1.ServiceSpec) {
		s.Ports = []v1.ServicePort{{Name: "http", Port: 80}, {Name: "metrics", Port: 90}}
	})
	slice := func(address string, http, metrics int32) *discovery.EndpointSlice {
		s := testSlice(v1.ProtocolTCP, 0, endpoint(address))
		s.Ports = []discovery.EndpointPort{
			{Name: ptr("http"), Protocol: ptr(v1.ProtocolTCP), Port: &http},
			{Name: ptr("metrics"), Protocol: ptr(v1.ProtocolTCP), Port: &metrics},
		}
		return s
	}
	all := []*discovery.EndpointSlice{slice("10.88.0.3", 8081, 9091), slice("10.88.0.2", 8080, 9090)}
	got := desired([]*v1.Service{service}, all, nil, testNode)
	want := []rule{
		{"default/web:80/TCP", at(v1.ProtocolTCP, "10.96.0.7:80"), targets("10.88.0.2:8080", "10.88.0.3:8081"), 0, nil, nil},
		{"default/web:90/TCP", at(v1.ProtocolTCP, "10.96.0.7:90"), targets("10.88.0.2:9090", "10.88.0.3:9091"), 0, nil, nil},
	}
	if !reflect.DeepEqual(got.Rules, want) {
		t.Errorf("rules\n%+v, want\n%+v", got.Rules, want)
	}
}

func TestBalancer(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBalancer(func() time.Time { return now })
	first, second := targets("10.88.0.2:1")[0], targets("10.88.0.3:1")[0]
	client := netip.MustParseAddr("10.88.0.9")
	picks := func(want ...netip.AddrPort) {
		t.Helper()
		for _, w := range want {
			if got, _, _ := b.pick(client, nil); got != w {
				t.Fatalf("picked %s, want %s", got, w)
			}
		}
	}
	if _, _, found := b.pick(client, nil); found {
		t.Fatal("picked from nothing")
	}
	b.update([]netip.AddrPort{first, second}, 0)
	b.admit(prefixes("10.88.0.2/32"))
	if _, _, found := b.pick(client, nil); found {
		t.Fatal("picked for a client that is not admitted")
	}
	b.admit(prefixes("10.88.0.2/32", "10.88.0.8/31"))
	picks(first, second)
	b.admit(nil)
	picks(first)
	if got, _, _ := b.pick(client, []netip.AddrPort{second}); got != first {
		t.Fatalf("picked %s, which had failed", got)
	}
	b.update([]netip.AddrPort{first, second}, time.Minute)
	picks(second, second)
	now = now.Add(time.Minute)
	picks(second)
	now = now.Add(time.Minute + 1)
	picks(first, first)
	b.update([]netip.AddrPort{second}, time.Minute)
	picks(second)
	b.update([]netip.AddrPort{first, second}, time.Minute)
	picks(second)
}
