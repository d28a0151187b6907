package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/cloud-provider/api"
)

// again is when a Service is looked at again that got no address: nothing tells of one that gets free.
const again = 10 * time.Second

// pool knows who has which address: by the status of Services, which outlives a boot, and by what it gave and is not in a
// status yet.
type pool struct {
	addresses netip.Prefix
	services  corelisters.ServiceLister

	mu    sync.Mutex
	given map[string]netip.Addr // by namespace and name
}

// pools has one for each family.
type pools map[v1.IPFamily]*pool

func newPools(services corelisters.ServiceLister, first, second netip.Prefix) pools {
	made := func(addresses netip.Prefix) *pool {
		return &pool{addresses: addresses, services: services, given: map[string]netip.Addr{}}
	}
	all := pools{v1.IPv4Protocol: made(first)}
	if second.IsValid() {
		all[v1.IPv6Protocol] = made(second)
	}
	return all
}

// families are those that a Service has addresses of, in its own order.
func (p pools) families(service *v1.Service) []v1.IPFamily {
	if _, found := p[v1.IPv6Protocol]; !found || len(service.Spec.IPFamilies) == 0 {
		return []v1.IPFamily{v1.IPv4Protocol}
	}
	return service.Spec.IPFamilies
}

// of are the addresses that a Service has.
func (p pools) of(service *v1.Service) []netip.Addr {
	var found []netip.Addr
	for _, family := range p.families(service) {
		if address := p[family].of(service); address.IsValid() {
			found = append(found, address)
		}
	}
	return found
}

// give gives a Service an address of each of its families, and takes back one of a family that it has no more.
func (p pools) give(service *v1.Service) ([]netip.Addr, error) {
	families := p.families(service)
	for family, each := range p {
		if !slices.Contains(families, family) {
			each.free(service)
		}
	}
	var found []netip.Addr
	for _, family := range families {
		address, err := p[family].give(service)
		if err != nil {
			return nil, err
		}
		found = append(found, address)
	}
	return found, nil
}

func (p pools) free(service *v1.Service) {
	for _, each := range p {
		each.free(service)
	}
}

func key(service *v1.Service) string { return service.Namespace + "/" + service.Name }

// of is the address that a Service has; none if it has none of the range.
func (p *pool) of(service *v1.Service) netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address, found := p.given[key(service)]; found {
		return address
	}
	return p.inStatus(service)
}

func (p *pool) inStatus(service *v1.Service) netip.Addr {
	for _, each := range service.Status.LoadBalancer.Ingress {
		if address, err := netip.ParseAddr(each.IP); err == nil && p.addresses.Contains(address) {
			return address
		}
	}
	return netip.Addr{}
}

// give has a Service keep its address, or gives it the one that it asks for, or the lowest that is free.
func (p *pool) give(service *v1.Service) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken, err := p.taken(service)
	if err != nil {
		return netip.Addr{}, err
	}
	address, err := p.choose(service, taken)
	if err == nil {
		p.given[key(service)] = address
	}
	return address, err
}

// taken are the addresses of all other Services, with their owners.
func (p *pool) taken(service *v1.Service) (map[netip.Addr]string, error) {
	all, err := p.services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	given, taken := map[string]netip.Addr{}, map[netip.Addr]string{}
	for _, each := range all {
		address, found := p.given[key(each)]
		if found {
			given[key(each)] = address
		} else {
			address = p.inStatus(each)
		}
		if key(each) != key(service) && address.IsValid() {
			taken[address] = key(each)
		}
	}
	p.given = given // without what belonged to Services that went without a word, as by a finalizer that somebody took away
	return taken, nil
}

func (p *pool) choose(service *v1.Service, taken map[netip.Addr]string) (netip.Addr, error) {
	if text := service.Spec.LoadBalancerIP; text != "" {
		address, err := netip.ParseAddr(text)
		if both := len(service.Spec.IPFamilies) > 1; both && err == nil && address.Is6() != p.addresses.Addr().Is6() {
			return p.any(service, taken)
		}
		if err != nil || !p.usable(address) {
			return netip.Addr{}, fmt.Errorf("loadBalancerIP: %s is no address of %s", text, p.addresses)
		}
		if owner, found := taken[address]; found {
			return netip.Addr{}, api.NewRetryError(fmt.Sprintf("loadBalancerIP: %s has %s", owner, address), again)
		}
		return address, nil
	}
	return p.any(service, taken)
}

// any is the one that a Service has, or the lowest that is free.
func (p *pool) any(service *v1.Service, taken map[netip.Addr]string) (netip.Addr, error) {
	for _, address := range []netip.Addr{p.given[key(service)], p.inStatus(service)} {
		if _, found := taken[address]; !found && p.usable(address) {
			return address, nil
		}
	}
	for address := p.addresses.Addr().Next(); p.usable(address); address = address.Next() {
		if _, found := taken[address]; !found {
			return address, nil
		}
	}
	return netip.Addr{}, api.NewRetryError(fmt.Sprintf("all addresses of %s are taken", p.addresses), again)
}

// usable leaves out the first address of the range and the last.
func (p *pool) usable(address netip.Addr) bool {
	return p.addresses.Contains(address) && address != p.addresses.Addr() && p.addresses.Contains(address.Next())
}

func (p *pool) free(service *v1.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.given, key(service))
}
