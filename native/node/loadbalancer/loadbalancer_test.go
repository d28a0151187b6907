package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

var four = netip.MustParsePrefix("10.97.0.0/30") // of which two can be had

func testService(name string, edits ...func(*v1.Service)) *v1.Service {
	made := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Port: 80}}},
	}
	for _, edit := range edits {
		edit(made)
	}
	return made
}

func has(address string) func(*v1.Service) {
	return func(s *v1.Service) { s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: address}} }
}

func wants(address string) func(*v1.Service) {
	return func(s *v1.Service) { s.Spec.LoadBalancerIP = address }
}

// knows is a pool of four addresses with Services in the API.
func knows(services ...*v1.Service) *pool {
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, each := range services {
		_ = store.Add(each)
	}
	return &pool{addresses: four, services: corelisters.NewServiceLister(store), given: map[string]netip.Addr{}}
}

func TestGive(t *testing.T) {
	for name, c := range map[string]struct {
		others []*v1.Service
		one    *v1.Service
		want   string
	}{
		"the lowest":               {nil, testService("a"), "10.97.0.1"},
		"the next":                 {[]*v1.Service{testService("b", has("10.97.0.1"))}, testService("a"), "10.97.0.2"},
		"one of another range":     {[]*v1.Service{testService("b", has("10.98.0.1"))}, testService("a"), "10.97.0.1"},
		"what it has":              {nil, testService("a", has("10.97.0.2")), "10.97.0.2"},
		"not what two have":        {[]*v1.Service{testService("b", has("10.97.0.2"))}, testService("a", has("10.97.0.2")), "10.97.0.1"},
		"not the last":             {nil, testService("a", has("10.97.0.3")), "10.97.0.1"},
		"what it asks for":         {nil, testService("a", wants("10.97.0.2")), "10.97.0.2"},
		"what it asks for anew":    {nil, testService("a", has("10.97.0.2"), wants("10.97.0.1")), "10.97.0.1"},
		"not what is not there":    {nil, testService("a", wants("10.98.0.1")), "loadBalancerIP: 10.98.0.1 is no address of 10.97.0.0/30"},
		"not what is no address":   {nil, testService("a", wants("a")), "loadBalancerIP: a is no address of 10.97.0.0/30"},
		"not what another has":     {[]*v1.Service{testService("b", has("10.97.0.2"))}, testService("a", wants("10.97.0.2")), "loadBalancerIP: default/b has 10.97.0.2"},
		"nothing where all is out": {[]*v1.Service{testService("b", has("10.97.0.2")), testService("c", has("10.97.0.1"))}, testService("a"), "all addresses of 10.97.0.0/30 are taken"},
	} {
		got, err := knows(c.others...).give(c.one)
		if err == nil && got.String() != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
}

func TestWhatWasGivenIsTakenUntilItIsFree(t *testing.T) {
	first, second, third := testService("a"), testService("b"), testService("c")
	p := knows(first, second, third)
	for _, each := range []*v1.Service{first, second, first} {
		if _, err := p.give(each); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.give(third); err == nil {
		t.Fatal("three of two")
	}
	p.free(first)
	if got, err := p.give(third); err != nil || got.String() != "10.97.0.1" {
		t.Errorf("%s, %v", got, err)
	}
	p.services = knows(first, third).services
	if got, err := p.give(first); err != nil || got.String() != "10.97.0.2" {
		t.Errorf("one that went without a word: %s, %v", got, err)
	}
}

// A Service gets an address of each of its families, in its own order; without a second range all are of the first.
func TestFamilies(t *testing.T) {
	of := func(families ...v1.IPFamily) func(*v1.Service) {
		return func(s *v1.Service) { s.Spec.IPFamilies = families }
	}
	none, six := testService("none"), testService("six", of(v1.IPv6Protocol))
	two, asks := testService("two", of(v1.IPv6Protocol, v1.IPv4Protocol)), testService("asks", of(v1.IPv4Protocol, v1.IPv6Protocol), wants("fd00::9"))
	lister := knows(none, six, two, asks).services
	both := newPools(lister, netip.MustParsePrefix("10.97.0.0/24"), netip.MustParsePrefix("fd00::/120"))
	for _, c := range []struct {
		own     pools
		service *v1.Service
		want    string
	}{
		{both, none, "[10.97.0.1]"},
		{both, six, "[fd00::1]"},
		{both, two, "[fd00::2 10.97.0.2]"},
		{both, asks, "[10.97.0.3 fd00::9]"},
		{both, testService("two", of(v1.IPv6Protocol)), "[fd00::2]"},
		{both, none, "[10.97.0.1]"},
		{newPools(lister, four, netip.Prefix{}), testService("none", of(v1.IPv4Protocol)), "[10.97.0.1]"},
	} {
		got, err := c.own.give(c.service)
		if err != nil || fmt.Sprint(got) != c.want || !slices.Equal(got, c.own.of(c.service)) {
			t.Errorf("%s: %v, %v; want %s", c.service.Name, got, err, c.want)
		}
	}
}

func TestSCTP(t *testing.T) {
	one := testService("a", func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolSCTP })
	_, err := balancers{pools{v1.IPv4Protocol: knows()}}.EnsureLoadBalancer(t.Context(), "", one, nil)
	if err == nil || err.Error() != "port 80: SCTP is not served here" {
		t.Error(err)
	}
}

// TestController: a Service gets an address, and keeps it until it is of another type; one of another class gets none.
func TestController(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := fake.NewClientset(
		testService("a"),
		testService("other", func(s *v1.Service) { s.Spec.LoadBalancerClass = new(string) }),
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "runsc"}},
	)
	services := client.CoreV1().Services("default")
	done := make(chan error, 1)
	go func() { done <- run(ctx, client, four, netip.Prefix{}) }()
	await := func(name, want string) *v1.Service {
		t.Helper()
		var found *v1.Service
		err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
			var err error
			found, err = services.Get(ctx, name, metav1.GetOptions{})
			got := ""
			if err == nil && len(found.Status.LoadBalancer.Ingress) > 0 {
				got = found.Status.LoadBalancer.Ingress[0].IP
			}
			return got == want && (len(found.Finalizers) > 0) == (want != ""), err
		})
		if err != nil {
			t.Fatalf("%s: %v; %+v", name, err, found)
		}
		return found
	}
	one := await("a", "10.97.0.1")
	one.Spec.Type = v1.ServiceTypeClusterIP
	if _, err := services.Update(ctx, one, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await("a", "")
	if _, err := services.Create(ctx, testService("b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await("b", "10.97.0.1")
	await("other", "")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
