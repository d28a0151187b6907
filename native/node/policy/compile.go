package policy

import (
	"cmp"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rule is one of a policy, with its peers as addresses.
type rule struct {
	peers set
	ports []networking.NetworkPolicyPort
}

// Compile makes rules of policies.
func Compile(world World) *Rules {
	made := &Rules{node: world.Node, ingress: map[netip.Addr]permits{}, egress: map[netip.Addr]permits{}}
	in, out := map[netip.Addr]sums{}, map[netip.Addr]sums{}
	for _, policy := range world.Policies {
		selected := world.selected(policy.Namespace, &policy.Spec.PodSelector)
		if len(selected) == 0 {
			continue
		}
		if directed(policy, networking.PolicyTypeIngress) {
			var rules []rule
			for _, each := range policy.Spec.Ingress {
				rules = append(rules, rule{world.peers(policy.Namespace, each.From), each.Ports})
			}
			for _, pod := range selected {
				of(in, pod.Address).ingress(pod, rules)
			}
		}
		if directed(policy, networking.PolicyTypeEgress) {
			var rules []rule
			for _, each := range policy.Spec.Egress {
				rules = append(rules, rule{world.peers(policy.Namespace, each.To), each.Ports})
			}
			for _, pod := range selected {
				of(out, pod.Address).egress(world.Pods, rules)
			}
		}
	}
	for address, each := range in {
		made.ingress[address] = each.permits()
	}
	for address, each := range out {
		made.egress[address] = each.permits()
	}
	return made
}

// directed tells whether a policy is of a type. The API server writes down the types; what has none is for ingress, and for
// egress if it has rules of it.
func directed(policy *networking.NetworkPolicy, kind networking.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) > 0 {
		return slices.Contains(policy.Spec.PolicyTypes, kind)
	}
	return kind == networking.PolicyTypeIngress || len(policy.Spec.Egress) > 0
}

// selected are pods of a namespace. A selector that is none selects nothing: the API refuses it.
func (w World) selected(namespace string, selector *metav1.LabelSelector) []Pod {
	matches, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil
	}
	var found []Pod
	for _, pod := range w.Pods {
		if pod.Namespace == namespace && matches.Matches(pod.Labels) {
			found = append(found, pod)
		}
	}
	return found
}

// peers are the addresses that a rule is about: all, where it names none.
func (w World) peers(namespace string, named []networking.NetworkPolicyPeer) set {
	if len(named) == 0 {
		return everywhere
	}
	var found set
	for _, each := range named {
		if each.IPBlock != nil {
			found = found.with(block(each.IPBlock))
			continue
		}
		within, err := w.within(namespace, each.NamespaceSelector)
		if err != nil {
			continue
		}
		for _, one := range within {
			for _, pod := range w.selected(one, cmp.Or(each.PodSelector, &metav1.LabelSelector{})) {
				found = found.with(setOf(alone(pod.Address)))
			}
		}
	}
	return found
}

// within are the namespaces that a peer's pods are of: the policy's own, where nothing is said of them.
func (w World) within(namespace string, selector *metav1.LabelSelector) ([]string, error) {
	if selector == nil {
		return []string{namespace}, nil
	}
	matches, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, err
	}
	var found []string
	for name, given := range w.Namespaces {
		if matches.Matches(given) {
			found = append(found, name)
		}
	}
	return found, nil
}

// block are the addresses of an ipBlock.
func block(of *networking.IPBlock) set {
	var found set
	if prefix, err := netip.ParsePrefix(of.CIDR); err == nil {
		found = setOf(prefix)
	}
	for _, text := range of.Except {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			found = found.without(prefix)
		}
	}
	return found
}

// sums are the peers of each span, from all rules together.
type sums map[span]set

func of(all map[netip.Addr]sums, address netip.Addr) sums {
	if all[address] == nil {
		all[address] = sums{}
	}
	return all[address]
}

func (s sums) add(of span, peers set) {
	s[of] = s[of].with(peers)
}

// ingress adds what rules permit to come to a pod; a port's name is one of that pod's.
func (s sums) ingress(to Pod, rules []rule) {
	for _, rule := range rules {
		s.open(rule, func(protocol v1.Protocol, name string) {
			for _, number := range to.ports(protocol, name) {
				s.add(span{protocol, number, number}, rule.peers)
			}
		})
	}
}

// egress adds what rules permit a pod to reach; a port's name is one of the pod's that is reached.
func (s sums) egress(all []Pod, rules []rule) {
	for _, rule := range rules {
		s.open(rule, func(protocol v1.Protocol, name string) {
			for _, pod := range all {
				if !rule.peers.has(pod.Address) {
					continue
				}
				for _, number := range pod.ports(protocol, name) {
					s.add(span{protocol, number, number}, setOf(alone(pod.Address)))
				}
			}
		})
	}
}

// open adds the ports of a rule that have numbers, and leaves those with names to named.
func (s sums) open(rule rule, named func(protocol v1.Protocol, name string)) {
	if len(rule.ports) == 0 {
		s.add(everything, rule.peers)
	}
	for _, port := range rule.ports {
		protocol := v1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		switch {
		case port.Port == nil:
			s.add(span{protocol, 0, 0xffff}, rule.peers)
		case port.Port.StrVal != "":
			named(protocol, port.Port.StrVal)
		default:
			first := uint16(port.Port.IntVal)
			last := first
			if port.EndPort != nil {
				last = uint16(*port.EndPort)
			}
			s.add(span{protocol, first, last}, rule.peers)
		}
	}
}

// ports are the numbers of a pod's port of that name.
func (p Pod) ports(protocol v1.Protocol, name string) []uint16 {
	var found []uint16
	for _, port := range p.Ports {
		if port.Name == name && cmp.Or(port.Protocol, v1.ProtocolTCP) == protocol {
			found = append(found, uint16(port.ContainerPort))
		}
	}
	return found
}

// permits are sorted, so that equal ones look alike.
func (s sums) permits() permits {
	made := permits{}
	for of, peers := range s {
		if len(peers) > 0 {
			made = append(made, permit{of, peers})
		}
	}
	slices.SortFunc(made, func(a, b permit) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	return made
}

// podPorts are those of a pod's containers that run beside each other.
func podPorts(pod *v1.Pod) []v1.ContainerPort {
	var found []v1.ContainerPort
	for _, each := range pod.Spec.Containers {
		found = append(found, each.Ports...)
	}
	for _, each := range pod.Spec.InitContainers {
		if each.RestartPolicy != nil && *each.RestartPolicy == v1.ContainerRestartPolicyAlways {
			found = append(found, each.Ports...)
		}
	}
	return slices.DeleteFunc(found, func(each v1.ContainerPort) bool { return each.Name == "" })
}
