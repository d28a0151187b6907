package loadbalancer

import (
	"fmt"
	"net/netip"
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
		if err != nil || !p.usable(address) {
			return netip.Addr{}, fmt.Errorf("loadBalancerIP: %s is no address of %s", text, p.addresses)
		}
		if owner, found := taken[address]; found {
			return netip.Addr{}, api.NewRetryError(fmt.Sprintf("loadBalancerIP: %s has %s", owner, address), again)
		}
		return address, nil
	}
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
