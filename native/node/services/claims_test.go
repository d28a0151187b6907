package services

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// named is the test service under another name.
func named(namespace, name string, service *v1.Service) *v1.Service {
	service.Namespace, service.Name = namespace, name
	return service
}

func sliceOf(service *v1.Service, address string) *discovery.EndpointSlice {
	slice := testSlice(v1.ProtocolTCP, 8080, endpoint(address))
	slice.Namespace = service.Namespace
	slice.Labels = map[string]string{discovery.LabelServiceName: service.Name}
	return slice
}

// servedBy tells which rule has a place; "" if nobody has.
func servedBy(want state, place string) string {
	for _, r := range want.Rules {
		if slices.Contains(r.Frontends, frontend{v1.ProtocolTCP, netip.MustParseAddrPort(place)}) {
			return r.Name
		}
	}
	return ""
}

func refused(t *testing.T, want state, sentences ...string) {
	t.Helper()
	if !slices.Equal(want.Refused, sentences) {
		t.Errorf("refused\n%s, want\n%s", strings.Join(want.Refused, "\n"), strings.Join(sentences, "\n"))
	}
}

// CVE-2020-8554: the thief comes first by name.
func TestExternalAddressesTakeNothingOver(t *testing.T) {
	victim := named("default", "victim", testService("10.96.82.7"))
	thief := named("aaa", "thief", testService("10.96.0.9", func(s *v1.ServiceSpec) {
		s.ExternalIPs = []string{"10.96.82.7", "10.96.0.1", "10.88.0.3", "192.0.2.1"}
		s.Ports = []v1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 443}, {Name: "c", Port: 8080}}
	}))
	all := []*v1.Service{thief, victim}
	got := desired(all, []*discovery.EndpointSlice{sliceOf(victim, "10.88.0.3"), sliceOf(thief, "10.88.0.66")}, nil, testNode)
	owned(t, got, map[string]string{
		"10.96.82.7:80":   "default/victim:80/TCP",
		"10.96.82.7:8080": "",
		"10.96.0.1:443":   "",
		"10.88.0.3:8080":  "",
		"192.0.2.1:8080":  "aaa/thief:8080/TCP",
	})
	if slices.Contains(got.Addresses, netip.MustParseAddr("10.88.0.3")) {
		t.Error("the node takes a pod's address")
	}
	refused(t, got,
		"aaa/thief: external address 10.88.0.3 is of a range of the cluster",
		"aaa/thief: external address 10.96.0.1 is of a range of the cluster",
		"aaa/thief: external address 10.96.82.7 is of a range of the cluster",
	)
}

// owned checks for whom places are served; for nobody where the owner is empty.
func owned(t *testing.T, got state, owners map[string]string) {
	t.Helper()
	for place, owner := range owners {
		if by := servedBy(got, place); by != owner {
			t.Errorf("%s is served for %q, not for %q", place, by, owner)
		}
	}
}

func hostPort(container, address string, port uint16) hostPorts {
	pod := hostPorts{ContainerID: container, Address: netip.MustParseAddr("10.88.0.5")}
	pod.Mappings = append(pod.Mappings, mapping{port, 8080, "tcp", address})
	return pod
}

// By kind, then by name: a name is nothing that anybody should get a place by.
func TestOrderOfKinds(t *testing.T) {
	node := testNode
	node.Ranges = nil // so that external addresses of every sort get as far as this
	cluster := named("zzz", "cluster", testService("10.96.0.7"))
	port := named("yyy", "port", testService("10.96.0.8", func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }))
	external := named("aaa", "external", testService("10.96.0.9", func(s *v1.ServiceSpec) {
		s.ExternalIPs = []string{"10.96.0.7", "10.88.0.1", "192.0.2.1"}
		s.Ports = []v1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 30080}}
	}))
	second := named("bbb", "external", testService("10.96.0.10", func(s *v1.ServiceSpec) { s.ExternalIPs = []string{"192.0.2.1"} }))
	pods := []hostPorts{hostPort("pod", "", 80), hostPort("pod", "", 30080), hostPort("pod", "", 9000)}
	got := desired([]*v1.Service{second, external, port, cluster}, nil, pods, node)
	owned(t, got, map[string]string{
		"10.96.0.7:80":    "zzz/cluster:80/TCP",
		"10.88.0.1:30080": "yyy/port:80/TCP",
		"127.0.0.1:30080": "yyy/port:80/TCP",
		"10.88.0.1:80":    "aaa/external:80/TCP",
		"127.0.0.1:80":    "host port :80/TCP of pod",
		"192.0.2.1:80":    "aaa/external:80/TCP",
		"10.88.0.1:9000":  "host port :9000/TCP of pod",
	})
	if len(got.Refused) != 6 {
		t.Errorf("refused: %s", strings.Join(got.Refused, "\n"))
	}
}

func TestHostPortsOfOthers(t *testing.T) {
	pods := []hostPorts{
		hostPort("pod", "10.96.0.7", 80), hostPort("pod", "::1", 80), hostPort("pod", "", 6443), hostPort("pod", "127.0.0.1", 10250),
		hostPort("pod", "0.0.0.0", 9000), hostPort("pod", "127.0.0.1", 9001),
	}
	got := desired(nil, nil, pods, testNode)
	var served []string
	for _, r := range got.Rules {
		for _, each := range r.Frontends {
			served = append(served, each.Address.String())
		}
	}
	if want := []string{"10.88.0.1:9000", "127.0.0.1:9000", "127.0.0.1:9001"}; !slices.Equal(served, want) {
		t.Errorf("serves %v, want %v", served, want)
	}
	refused(t, got,
		"host port 10.96.0.7:80/TCP of pod: 10.96.0.7 is no address of the node",
		"host port 127.0.0.1:10250/TCP of pod: 127.0.0.1:10250 is the node's own",
		"host port :6443/TCP of pod: 10.88.0.1:6443 is the node's own",
		"host port :6443/TCP of pod: 127.0.0.1:6443 is the node's own",
		"host port ::1:80/TCP of pod: ::1 is no address of the node",
	)
}

// One endpoint on the node, one elsewhere, as a hand-written slice may have it.
func TestTrafficPolicies(t *testing.T) {
	here, elsewhere := endpoint("10.88.0.2"), endpoint("192.0.2.7")
	here.NodeName = ptr("runsc")
	slice := testSlice(v1.ProtocolTCP, 8080, here, elsewhere)
	local, both := targets("10.88.0.2:8080"), targets("10.88.0.2:8080", "192.0.2.7:8080")
	nodePort := func(s *v1.ServiceSpec) { s.Ports[0].NodePort = 30080 }
	inside := func(s *v1.ServiceSpec) { s.InternalTrafficPolicy = ptr(v1.ServiceInternalTrafficPolicyLocal) }
	outside := func(s *v1.ServiceSpec) { s.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal }
	const name = "default/web:80/TCP"
	cluster, node := tcp("10.96.0.7:80"), tcp("10.88.0.1:30080", "127.0.0.1:30080")
	for _, c := range []struct {
		edits []func(*v1.ServiceSpec)
		rules []rule
	}{
		{[]func(*v1.ServiceSpec){nodePort}, []rule{{name, slices.Concat(cluster, node), both, 0, nil, nil}}},
		{[]func(*v1.ServiceSpec){nodePort, inside}, []rule{{name, cluster, local, 0, nil, nil}, {name + " from outside", node, both, 0, nil, nil}}},
		{[]func(*v1.ServiceSpec){nodePort, outside}, []rule{{name, cluster, both, 0, nil, nil}, {name + " from outside", node, local, 0, nil, nil}}},
		{[]func(*v1.ServiceSpec){nodePort, inside, outside}, []rule{{name, slices.Concat(cluster, node), local, 0, nil, nil}}},
		{[]func(*v1.ServiceSpec){inside}, []rule{{name, cluster, local, 0, nil, nil}}},
	} {
		got := desired([]*v1.Service{testService("10.96.0.7", c.edits...)}, []*discovery.EndpointSlice{slice}, nil, testNode)
		if !reflect.DeepEqual(got.Rules, c.rules) {
			t.Errorf("rules\n%+v, want\n%+v", got.Rules, c.rules)
		}
	}
}

func tcp(texts ...string) []frontend { return at(v1.ProtocolTCP, texts...) }
