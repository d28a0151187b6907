package policy

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/yaml"

	"sandkube/node/cluster"
)

// The pods of the tests, by the names that they go by: namespace a has web and client, b has client and other.
var (
	webPod  = testPod("a", "10.88.0.2", "app=web", v1.ContainerPort{Name: "http", ContainerPort: 8080}, v1.ContainerPort{Name: "http", ContainerPort: 8081, Protocol: v1.ProtocolUDP})
	client  = testPod("a", "10.88.0.3", "app=client")
	foreign = testPod("b", "10.88.0.4", "app=client")
	other   = testPod("b", "10.88.0.5", "app=other", v1.ContainerPort{Name: "http", ContainerPort: 9090})
	names   = map[string]string{
		"web": "10.88.0.2", "client": "10.88.0.3", "foreign": "10.88.0.4", "other": "10.88.0.5",
		"node": "10.88.0.1", "dns": "10.96.0.10", "outside": "192.0.2.7",
	}
)

func testPod(namespace, address, given string, ports ...v1.ContainerPort) Pod {
	labelled, err := labels.ConvertSelectorToLabelsMap(given)
	if err != nil {
		panic(err)
	}
	return Pod{namespace, labelled, netip.MustParseAddr(address), ports}
}

func policyOf(t *testing.T, namespace, spec string) *networking.NetworkPolicy {
	t.Helper()
	made := &networking.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	text, err := yaml.ToJSON([]byte("---\n" + spec)) // what begins with a brace alone is taken for JSON
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&made.Spec); err != nil {
		t.Fatal(err)
	}
	return made
}

func world(policies ...*networking.NetworkPolicy) World {
	return World{
		Node:       nodeOf(cluster.Default),
		Namespaces: map[string]labels.Set{"a": {"team": "one"}, "b": {"team": "two"}, "kube-system": {}},
		Pods:       []Pod{webPod, client, foreign, other, dns(cluster.Default)},
		Policies:   policies,
	}
}

type try struct {
	from, to string
	protocol v1.Protocol
	port     uint16
	allowed  bool
}

// semantics has a case for each sentence of the API's documentation.
var semantics = []struct {
	name     string
	policies map[string]string // by namespace
	tries    []try
}{
	{"without a policy all is allowed", nil, []try{
		{"foreign", "web", "TCP", 80, true}, {"web", "outside", "UDP", 1, true},
	}},
	{"a policy with no rule isolates for ingress alone", map[string]string{"a": `{podSelector: {}}`}, []try{
		{"client", "web", "TCP", 80, false}, {"client", "web", "UDP", 80, false}, {"client", "web", "SCTP", 80, false},
		{"outside", "web", "TCP", 80, false}, {"web", "foreign", "TCP", 80, true}, {"foreign", "other", "TCP", 80, true},
	}},
	{"nothing keeps the node from its pods, or a pod from itself", map[string]string{"a": `{podSelector: {}, policyTypes: [Ingress, Egress]}`}, []try{
		{"node", "web", "TCP", 80, true}, {"web", "web", "TCP", 80, true}, {"web", "node", "TCP", 80, false},
	}},
	{"an empty rule allows all", map[string]string{"a": `{podSelector: {}, ingress: [{}], egress: [{}], policyTypes: [Ingress, Egress]}`}, []try{
		{"outside", "web", "SCTP", 80, true}, {"web", "outside", "UDP", 53, true},
	}},
	{"egress alone leaves ingress", map[string]string{"a": `{podSelector: {}, policyTypes: [Egress]}`}, []try{
		{"foreign", "web", "TCP", 80, true}, {"web", "foreign", "TCP", 80, false}, {"client", "web", "TCP", 80, false},
	}},
	{"types that are not written down", map[string]string{"a": `{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}`}, []try{
		{"web", "client", "TCP", 80, false}, {"web", "foreign", "TCP", 80, false},
	}},
	{"the pods of a selector are isolated, others are not", map[string]string{"a": `{podSelector: {matchLabels: {app: web}}}`}, []try{
		{"foreign", "web", "TCP", 80, false}, {"foreign", "client", "TCP", 80, true},
	}},
	{"a selector of pods is for the policy's namespace", map[string]string{"a": `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}`}, []try{
		{"client", "web", "TCP", 80, true}, {"foreign", "web", "TCP", 80, false},
	}},
	{"an expression", map[string]string{"a": `{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [client]}]}}`}, []try{
		{"client", "web", "TCP", 80, false}, {"web", "client", "TCP", 80, true},
	}},
	{"a selector of namespaces is for all their pods", map[string]string{"a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: two}}}]}]}`}, []try{
		{"client", "web", "TCP", 80, false}, {"foreign", "web", "TCP", 80, true}, {"other", "web", "TCP", 80, true},
	}},
	{"an empty selector of namespaces is for all pods, and nothing else", map[string]string{"a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`}, []try{
		{"client", "web", "TCP", 80, true}, {"other", "web", "TCP", 80, true}, {"outside", "web", "TCP", 80, false},
	}},
	{"both selectors in one peer are met together", map[string]string{"a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: two}}, podSelector: {matchLabels: {app: client}}}]}]}`}, []try{
		{"client", "web", "TCP", 80, false}, {"foreign", "web", "TCP", 80, true}, {"other", "web", "TCP", 80, false},
	}},
	{"in two peers one is enough", map[string]string{"a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: two}}}, {podSelector: {matchLabels: {app: client}}}]}]}`}, []try{
		{"client", "web", "TCP", 80, true}, {"other", "web", "TCP", 80, true}, {"outside", "web", "TCP", 80, false},
	}},
	{"a block, but for what it leaves out", map[string]string{"a": `{podSelector: {}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}, {ipBlock: {cidr: "2001:db8::/32"}}]}],
		egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24, 10.88.0.4/32]}}]}]}`}, []try{
		{"outside", "web", "TCP", 80, true}, {"client", "web", "TCP", 80, false}, {"web", "outside", "TCP", 80, false},
		{"web", "foreign", "TCP", 80, false}, {"web", "other", "TCP", 80, true}, {"web", "node", "TCP", 80, true},
	}},
	{"what one policy leaves out of a block another may allow", map[string]string{
		"a": `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.88.0.0/24, except: [10.88.0.4/32]}}]}, {to: [{namespaceSelector: {matchLabels: {team: two}}}]}]}`}, []try{
		{"web", "foreign", "TCP", 80, true}, {"web", "outside", "TCP", 80, false},
	}},
	{"ports: TCP unless said, a number, a range, all of a protocol", map[string]string{"a": `{podSelector: {}, ingress: [
		{ports: [{port: 80}, {port: 90, endPort: 95}, {protocol: UDP}, {protocol: SCTP, port: 7}]}]}`}, []try{
		{"other", "web", "TCP", 80, true}, {"other", "web", "TCP", 81, false}, {"other", "web", "UDP", 80, true},
		{"other", "web", "TCP", 89, false}, {"other", "web", "TCP", 90, true}, {"other", "web", "TCP", 95, true}, {"other", "web", "TCP", 96, false},
		{"other", "web", "SCTP", 7, true}, {"other", "web", "SCTP", 8, false},
	}},
	{"a port's name is the one of the pod that is reached", map[string]string{
		"a": `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`,
		"b": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}, {port: http, protocol: UDP}]}]}`}, []try{
		{"client", "web", "TCP", 8080, true}, {"client", "web", "TCP", 9090, false}, {"client", "web", "UDP", 8081, false},
		{"web", "client", "TCP", 8080, false},
		{"foreign", "other", "TCP", 9090, true}, {"foreign", "other", "TCP", 8080, false}, {"foreign", "web", "TCP", 9090, false},
		{"foreign", "web", "TCP", 8080, true}, {"foreign", "outside", "TCP", 8080, false},
	}},
	{"peers and ports of a rule are met together", map[string]string{"a": `{podSelector: {}, ingress: [
		{from: [{podSelector: {}}], ports: [{port: 1}]}, {from: [{namespaceSelector: {matchLabels: {team: two}}}], ports: [{port: 2}]}]}`}, []try{
		{"client", "web", "TCP", 1, true}, {"client", "web", "TCP", 2, false}, {"other", "web", "TCP", 1, false}, {"other", "web", "TCP", 2, true},
	}},
	{"both ends must allow it", map[string]string{
		"a": `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 1}, {port: 2}]}]}`,
		"b": `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 2}, {port: 3}]}]}`}, []try{
		{"foreign", "web", "TCP", 1, false}, {"foreign", "web", "TCP", 2, true}, {"foreign", "web", "TCP", 3, false},
	}},
	{"names, under a policy for all that goes out", map[string]string{"a": `{podSelector: {}, policyTypes: [Egress], egress: [
		{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: dns, protocol: UDP}, {port: 53}]}]}`}, []try{
		{"web", "dns", "UDP", 53, true}, {"web", "dns", "TCP", 53, true}, {"web", "dns", "UDP", 54, false}, {"web", "client", "UDP", 53, false},
	}},
}

func TestSemantics(t *testing.T) {
	for _, each := range semantics {
		t.Run(each.name, func(t *testing.T) {
			var policies []*networking.NetworkPolicy
			for namespace, spec := range each.policies {
				policies = append(policies, policyOf(t, namespace, spec))
			}
			rules := Compile(world(policies...))
			filter := rules.table(cluster.Default, nil)
			for _, one := range each.tries {
				from, to := netip.MustParseAddr(names[one.from]), netip.MustParseAddr(names[one.to])
				if got := rules.Allows(from, to, one.protocol, one.port); got != one.allowed {
					t.Errorf("%v: allowed: %v", one, got)
				}
				if one.from == "node" || one.from == one.to || one.protocol == v1.ProtocolSCTP {
					continue // which no filter sees, or none looks into
				}
				if got := passes(filter, from, to, numbers[one.protocol], one.port); got != one.allowed {
					t.Errorf("%v: the filter lets it pass: %v", one, got)
				}
			}
		})
	}
}

// Policies of one pod add up, whichever comes first.
func TestPoliciesAddUp(t *testing.T) {
	one := policyOf(t, "a", `{podSelector: {}, ingress: [{ports: [{port: 1}]}]}`)
	two := policyOf(t, "a", `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}`)
	for _, rules := range []*Rules{Compile(world(one, two)), Compile(world(two, one))} {
		for port, from := range map[uint16]Pod{1: other, 2: client} {
			if !rules.Allows(from.Address, webPod.Address, v1.ProtocolTCP, port) {
				t.Errorf("port %d", port)
			}
		}
		if rules.Allows(other.Address, webPod.Address, v1.ProtocolTCP, 2) {
			t.Error("what neither allows")
		}
	}
}

// A pod that several connections in a process come from has no rules until there are policies.
func TestAFilterWithoutRules(t *testing.T) {
	filter := NewFilter()
	endpoint := netip.AddrPortFrom(webPod.Address, 80)
	if !filter.Allows(client.Address, endpoint, v1.ProtocolTCP) {
		t.Error("nothing is allowed")
	}
	filter.follow(Compile(world(policyOf(t, "a", `{podSelector: {}}`))))
	if filter.Allows(client.Address, endpoint, v1.ProtocolTCP) {
		t.Error("everything is allowed")
	}
}

func TestPortsOfPods(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	port := func(name string) []v1.ContainerPort { return []v1.ContainerPort{{Name: name, ContainerPort: 1}} }
	found := podPorts(&v1.Pod{Spec: v1.PodSpec{
		Containers:     []v1.Container{{Ports: port("main")}, {Ports: port("")}},
		InitContainers: []v1.Container{{Ports: port("first")}, {Ports: port("beside"), RestartPolicy: &always}},
	}})
	if len(found) != 2 || found[0].Name != "main" || found[1].Name != "beside" {
		t.Errorf("found %v", found)
	}
}
