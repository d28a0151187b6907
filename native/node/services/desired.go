package services

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
)

// frontend is one place to listen on.
type frontend struct {
	Protocol v1.Protocol
	Address  netip.AddrPort
}

// rule says where one port of a Service (or one host port) is listened for and
// where its traffic goes. Affinity 0 means none. Sources are those of clients
// that are served, all of them where there are none. Near has other endpoints for some clients: those of another node, under a
// traffic policy Local.
type rule struct {
	Name      string
	Frontends []frontend
	Endpoints []netip.AddrPort
	Affinity  time.Duration
	Sources   []netip.Prefix
	Near      []Choice
}

// served says whether there is anybody to send to.
func (r rule) served() bool {
	return len(r.Endpoints) > 0 || slices.ContainsFunc(r.Near, func(each Choice) bool { return len(each.Endpoints) > 0 })
}

// state is what a set of API objects asks of the node. Addresses are those to
// put on the device: also those of services without endpoints, so that the node
// refuses their traffic instead of routing it. Refused has a sentence for each
// wish that is not met; they are sorted.
type state struct {
	Addresses []netip.Addr
	Rules     []rule
	Checks    []check
	Refused   []string
}

// kinds of claims on a frontend: where two claim the same, the lower kind has it, whatever their names.
const (
	ofCluster = iota
	ofNodePort
	ofLoadBalancer
	ofExternal
	ofHostPort
)

// claim is a rule's wish for a frontend.
type claim struct {
	kind  int
	rule  string
	place frontend
}

// desired computes the state: that of each family, which have nothing in common.
func desired(all []*v1.Service, endpoints []*discovery.EndpointSlice, hostPorts []hostPorts, node Node) state {
	want := desiredOf(all, endpoints, hostPorts, node)
	if node.Second == nil {
		return want
	}
	second := desiredOf(all, endpoints, hostPorts, *node.Second)
	want.Addresses = append(want.Addresses, second.Addresses...)
	want.Rules = append(want.Rules, second.Rules...)
	want.Refused = append(want.Refused, second.Refused...)
	slices.Sort(want.Refused)
	for _, each := range second.Checks {
		if !slices.ContainsFunc(want.Checks, func(one check) bool { return one.Service == each.Service }) {
			want.Checks = append(want.Checks, each)
		}
	}
	return want
}

func desiredOf(all []*v1.Service, endpoints []*discovery.EndpointSlice, hostPorts []hostPorts, node Node) state {
	kind := discovery.AddressTypeIPv4
	if node.second() {
		kind = discovery.AddressTypeIPv6
	}
	byService := map[string][]*discovery.EndpointSlice{}
	for _, slice := range endpoints {
		if slice.AddressType == kind {
			key := slice.Namespace + "/" + slice.Labels[discovery.LabelServiceName]
			byService[key] = append(byService[key], slice)
		}
	}
	want := &wishes{node: node, own: node.all()}
	for _, service := range all {
		want.service(service, byService[service.Namespace+"/"+service.Name])
	}
	for _, pod := range hostPorts {
		want.hostPorts(pod)
	}
	return want.settle()
}

// wishes collects what is asked for, before it is known who has what.
type wishes struct {
	node   Node
	own    []netip.Addr // of all nodes
	state  state
	claims []claim
}

func (w *wishes) refuse(format string, words ...any) {
	w.state.Refused = append(w.state.Refused, fmt.Sprintf(format, words...))
}

// service asks for all that one Service asks for.
func (w *wishes) service(service *v1.Service, endpoints []*discovery.EndpointSlice) {
	own := addresses{cluster: w.clusterAddresses(service)}
	if len(own.cluster) == 0 {
		return
	}
	own.external, own.balanced = w.externalAddresses(service), w.balancedAddresses(service)
	for _, address := range slices.Concat(own.cluster, own.external, own.balanced) {
		if !slices.Contains(w.own, address) {
			w.state.Addresses = append(w.state.Addresses, address)
		}
	}
	for _, port := range service.Spec.Ports {
		w.port(service, port, own, endpoints)
	}
	if found := checkOf(service, endpoints); found != nil {
		w.state.Checks = append(w.state.Checks, *found)
	}
}

// addresses are those of one Service.
type addresses struct{ cluster, external, balanced []netip.Addr }

// port makes one rule of a port, another where traffic from outside goes to other endpoints than traffic from inside, and
// another for a load balancer that not every client may use.
func (w *wishes) port(service *v1.Service, port v1.ServicePort, own addresses, all []*discovery.EndpointSlice) {
	protocol := cmp.Or(port.Protocol, v1.ProtocolTCP)
	name := service.Namespace + "/" + service.Name + ":" + strconv.Itoa(int(port.Port)) + "/" + string(protocol) + w.suffix()
	endpoints := func(local bool, nodes ...string) []netip.AddrPort {
		if !local {
			nodes = nil
		}
		return readyEndpoints(all, port.Name, protocol, nodes...)
	}
	insideLocal := service.Spec.InternalTrafficPolicy != nil && *service.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal
	outsideLocal := service.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
	inside := rule{Name: name, Endpoints: endpoints(insideLocal, w.node.Name), Affinity: affinity(service)}
	if insideLocal {
		for _, each := range w.node.Others {
			inside.Near = append(inside.Near, Choice{each.Pods, endpoints(true, each.Name)})
		}
	}
	w.rule(inside)
	outside := rule{Name: name, Endpoints: endpoints(outsideLocal, w.node.names()...), Affinity: inside.Affinity}
	differs := len(inside.Near) > 0 || !slices.Equal(inside.Endpoints, outside.Endpoints)
	if differs && (port.NodePort > 0 || len(own.external)+len(own.balanced) > 0) {
		outside.Name += " from outside"
		w.rule(outside)
	}
	balanced := outside
	if balanced.Sources = w.sources(service, own.balanced); len(balanced.Sources) > 0 {
		balanced.Name = name + " of the load balancer"
		w.rule(balanced)
	}
	for _, address := range own.cluster {
		w.claim(ofCluster, name, frontend{protocol, netip.AddrPortFrom(address, uint16(port.Port))})
	}
	for _, address := range own.balanced {
		w.claim(ofLoadBalancer, balanced.Name, frontend{protocol, netip.AddrPortFrom(address, uint16(port.Port))})
	}
	for _, address := range own.external {
		w.claim(ofExternal, outside.Name, frontend{protocol, netip.AddrPortFrom(address, uint16(port.Port))})
	}
	w.nodePort(protocol, uint16(port.NodePort), outside, func(node string) []netip.AddrPort { return endpoints(outsideLocal, node) })
}

// nodePort asks for the port of each node, if there is one. Where nodes send to other endpoints, each has a rule of its own.
func (w *wishes) nodePort(protocol v1.Protocol, port uint16, outside rule, of func(node string) []netip.AddrPort) {
	if port == 0 {
		return
	}
	claim := func(name string, addresses ...netip.Addr) {
		for _, address := range addresses {
			w.claim(ofNodePort, name, frontend{protocol, netip.AddrPortFrom(address, port)})
		}
	}
	at := func(node string) string {
		own := outside
		if own.Endpoints = of(node); !slices.Equal(own.Endpoints, outside.Endpoints) {
			own.Name += " at " + node
			w.rule(own)
		}
		return own.Name
	}
	claim(at(w.node.Name), w.node.Addresses...)
	for _, each := range w.node.Others {
		claim(at(each.Name), each.Address)
	}
}

func (w *wishes) rule(one rule) { w.state.Rules = append(w.state.Rules, one) }

// claim leaves out what the node itself serves.
func (w *wishes) claim(kind int, rule string, place frontend) {
	if place.Protocol == v1.ProtocolTCP {
		if slices.Contains(w.node.Taken, place.Address) {
			return
		}
		if slices.Contains(w.own, place.Address.Addr()) && slices.Contains(w.node.Ports, place.Address.Port()) {
			w.refuse("%s: %s is the node's own", rule, place.Address)
			return
		}
	}
	w.claims = append(w.claims, claim{kind, rule, place})
}

// settle gives each place to the first that claims it: by kind, then by name.
func (w *wishes) settle() state {
	want := &w.state
	slices.SortFunc(want.Addresses, netip.Addr.Compare)
	want.Addresses = slices.Compact(want.Addresses)
	slices.SortFunc(want.Rules, func(a, b rule) int { return cmp.Compare(a.Name, b.Name) })
	byName := make(map[string]int, len(want.Rules))
	for i, each := range want.Rules {
		byName[each.Name] = i
	}
	slices.SortStableFunc(w.claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.rule, b.rule))
	})
	owners := make(map[frontend]string, len(w.claims))
	for _, each := range w.claims {
		if first, taken := owners[each.place]; taken {
			if first != each.rule {
				w.refuse("%s: %s is served for %s", each.rule, each.place.Address, first)
			}
			continue
		}
		owners[each.place] = each.rule
		rule := &want.Rules[byName[each.rule]]
		rule.Frontends = append(rule.Frontends, each.place)
	}
	slices.Sort(want.Refused)
	return *want
}

// suffix is behind the names of rules of the second family.
func (w *wishes) suffix() string {
	if w.node.second() {
		return " over IPv6"
	}
	return ""
}

// clusterAddresses gives the addresses that the API server gave a Service:
// none for a headless one and for an external name.
func (w *wishes) clusterAddresses(service *v1.Service) []netip.Addr {
	if service.Spec.Type == v1.ServiceTypeExternalName {
		return nil
	}
	texts := service.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{service.Spec.ClusterIP}
	}
	return w.parse(texts)
}

// externalAddresses gives those that a Service asks for itself. One of the pods' range or of the Services' is somebody
// else's, now or later (CVE-2020-8554); only the node's own is not.
func (w *wishes) externalAddresses(service *v1.Service) []netip.Addr {
	var allowed []netip.Addr
	for _, address := range w.parse(service.Spec.ExternalIPs) {
		if w.foreign(service, address) || w.node.Balanced.Contains(address) {
			w.refuse("%s/%s: external address %s is of a range of the cluster", service.Namespace, service.Name, address)
			continue
		}
		allowed = append(allowed, address)
	}
	return allowed
}

// balancedAddresses gives those of the Service's load balancers, whoever made them, but for ones that take connections on
// themselves (KEP-1860).
func (w *wishes) balancedAddresses(service *v1.Service) []netip.Addr {
	if service.Spec.Type != v1.ServiceTypeLoadBalancer {
		return nil
	}
	var allowed []netip.Addr
	for _, each := range service.Status.LoadBalancer.Ingress {
		if each.IPMode != nil && *each.IPMode == v1.LoadBalancerIPModeProxy {
			continue
		}
		for _, address := range w.parse([]string{each.IP}) {
			if w.foreign(service, address) {
				w.refuse("%s/%s: the load balancer's address %s is of a range of the cluster", service.Namespace, service.Name, address)
				continue
			}
			allowed = append(allowed, address)
		}
	}
	return allowed
}

// foreign says whether an address is of a range in which others have theirs.
func (w *wishes) foreign(service *v1.Service, address netip.Addr) bool {
	ranged := slices.ContainsFunc(w.node.Ranges, func(each netip.Prefix) bool { return each.Contains(address) })
	return ranged && !slices.Contains(w.own, address) && !slices.Contains(w.clusterAddresses(service), address)
}

// sources are the clients that may use a Service's load balancer, none where all may. The node may in any case, which has
// the balancer's own address there.
func (w *wishes) sources(service *v1.Service, balanced []netip.Addr) []netip.Prefix {
	if len(balanced) == 0 || len(service.Spec.LoadBalancerSourceRanges) == 0 {
		return nil
	}
	var found []netip.Prefix
	for _, text := range service.Spec.LoadBalancerSourceRanges {
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil {
			found = append(found, prefix)
		}
	}
	for _, address := range slices.Concat(w.own, balanced) {
		found = append(found, netip.PrefixFrom(address, address.BitLen()))
	}
	return found
}

// parse gives the addresses of the node's family.
func (w *wishes) parse(texts []string) []netip.Addr {
	var addresses []netip.Addr
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil && address.Is6() == w.node.second() {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

func affinity(service *v1.Service) time.Duration {
	if service.Spec.SessionAffinity != v1.ServiceAffinityClientIP {
		return 0
	}
	seconds := v1.DefaultClientIPServiceAffinitySeconds
	if c := service.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}
