package services

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"sandkube/node/cluster"
)

// twoNodes are runsc and runsc-2.
func twoNodes() Node {
	of := cluster.Default
	of.Nodes = 2
	return On(of)
}

func onNode(address, node string) discovery.Endpoint {
	one := endpoint(address)
	one.NodeName = &node
	return one
}

func TestServicesOfTwoNodes(t *testing.T) {
	slice := testSlice(v1.ProtocolTCP, 8080, onNode("10.88.0.2", "runsc"), onNode("10.88.1.2", "runsc-2"), onNode("10.88.1.3", "runsc-2"))
	first, second := targets("10.88.0.2:8080"), targets("10.88.1.2:8080", "10.88.1.3:8080")
	both := slices.Concat(first, second)
	onCluster, ports := at(v1.ProtocolTCP, "10.96.0.7:80"), at(v1.ProtocolTCP, "10.88.0.1:30080", "127.0.0.1:30080", "10.88.1.1:30080")
	nodePort := func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }
	inside := func(s *v1.ServiceSpec) { s.InternalTrafficPolicy = ptr(v1.ServiceInternalTrafficPolicyLocal) }
	outside := func(s *v1.ServiceSpec) { s.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal }
	split := []Choice{{netip.MustParsePrefix("10.88.1.0/24"), second}}
	const name = "default/web:80/TCP"
	for _, each := range []struct {
		edits []func(*v1.ServiceSpec)
		want  []rule
	}{
		{nil, []rule{{name, onCluster, both, 0, nil, nil}}},
		{[]func(*v1.ServiceSpec){nodePort}, []rule{{name, slices.Concat(onCluster, ports), both, 0, nil, nil}}},
		{[]func(*v1.ServiceSpec){inside}, []rule{{name, onCluster, first, 0, nil, split}}},
		{[]func(*v1.ServiceSpec){nodePort, outside}, []rule{
			{name, onCluster, both, 0, nil, nil},
			{name + " at runsc", ports[:2], first, 0, nil, nil},
			{name + " at runsc-2", ports[2:], second, 0, nil, nil},
		}},
		{[]func(*v1.ServiceSpec){nodePort, inside}, []rule{
			{name, onCluster, first, 0, nil, split},
			{name + " from outside", ports, both, 0, nil, nil},
		}},
	} {
		got := desired([]*v1.Service{testService("10.96.0.7", each.edits...)}, []*discovery.EndpointSlice{slice}, nil, twoNodes())
		if !reflect.DeepEqual(got.Rules, each.want) || len(got.Refused) > 0 {
			t.Errorf("rules\n%+v, want\n%+v; %v", got.Rules, each.want, got.Refused)
		}
	}
}

func TestHostPortsAreOfThePodsNode(t *testing.T) {
	pod := func(id, address, host string) hostPorts {
		one := hostPorts{ContainerID: id, Address: netip.MustParseAddr(address)}
		one.Mappings = append(one.Mappings, mapping{8080, 80, "tcp", host})
		return one
	}
	pods := []hostPorts{
		pod("a", "10.88.0.2", "10.88.0.1"), pod("b", "10.88.1.2", ""), pod("c", "10.88.1.3", "127.0.0.1"), pod("d", "10.88.0.4", "127.0.0.1"),
		pod("e", "10.88.1.4", "10.88.0.1"),
	}
	got := desired(nil, nil, pods, twoNodes())
	want := []rule{
		{"host port 10.88.0.1:8080/TCP of a", at(v1.ProtocolTCP, "10.88.0.1:8080"), targets("10.88.0.2:80"), 0, nil, nil},
		{"host port 127.0.0.1:8080/TCP of c", at(v1.ProtocolTCP, "127.0.0.1:8080"), targets("10.88.1.3:80"), 0, nil, nil},
		{"host port 127.0.0.1:8080/TCP of d", nil, targets("10.88.0.4:80"), 0, nil, nil},
		{"host port :8080/TCP of b", at(v1.ProtocolTCP, "10.88.1.1:8080"), targets("10.88.1.2:80"), 0, nil, nil},
	}
	refused := []string{
		"host port 10.88.0.1:8080/TCP of e: 10.88.0.1 is no address of the node",
		"host port 127.0.0.1:8080/TCP of d: 127.0.0.1:8080 is served for host port 127.0.0.1:8080/TCP of c",
	}
	if !reflect.DeepEqual(got.Rules, want) || !slices.Equal(got.Refused, refused) {
		t.Errorf("rules\n%+v, want\n%+v; %v", got.Rules, want, got.Refused)
	}
}

func TestAddressesOfTheOtherNodeAreNobodyElses(t *testing.T) {
	service := testService("10.96.0.7", func(s *v1.ServiceSpec) { s.ExternalIPs = []string{"10.88.1.7"} })
	got := desired([]*v1.Service{service}, nil, nil, twoNodes())
	want := []string{"default/web: external address 10.88.1.7 is of a range of the cluster"}
	if !slices.Equal(got.Refused, want) {
		t.Errorf("%v", got.Refused)
	}
}

func TestClientsMeetEndpointsOfTheirNode(t *testing.T) {
	b := newBalancer(time.Now)
	b.update(nil, 0)
	other := netip.MustParsePrefix("10.88.1.0/24")
	b.split([]Choice{{other, targets("10.88.1.2:80")}}, time.Hour)
	endpoint, _, found := b.pick(netip.MustParseAddr("10.88.1.9"), nil)
	if !found || endpoint != targets("10.88.1.2:80")[0] || !b.has(endpoint) {
		t.Errorf("a client of the other node: %v, %v", endpoint, found)
	}
	if _, _, found := b.pick(netip.MustParseAddr("10.88.0.9"), nil); found {
		t.Error("a client of a node without endpoints is served")
	}
	kept := b.near[other]
	b.split([]Choice{{other, targets("10.88.1.2:80", "10.88.1.3:80")}}, time.Hour)
	if again, _, _ := b.pick(netip.MustParseAddr("10.88.1.9"), nil); again != endpoint || b.near[other] != kept {
		t.Errorf("a session met %v after %v", again, endpoint)
	}
	b.split(nil, 0)
	if b.has(endpoint) {
		t.Error("an endpoint that is gone")
	}
}
