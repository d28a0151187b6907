package services

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sandkube/node/changes"
	"sandkube/node/cluster"
)

const hostPortFolder = "/run/sandkube/hostports"

// proxied leaves out what asks for another proxy, and the endpoints of
// headless services.
const proxied = "!service.kubernetes.io/service-proxy-name,!" + v1.IsHeadlessService

// Judge says whether a client may have a connection to an endpoint.
type Judge func(client netip.Addr, endpoint netip.AddrPort, protocol v1.Protocol) bool

// Filter is what else is done about connections, by policies and by the kernel.
type Filter interface {
	// Allows says whether a client may have a connection to an endpoint.
	Allows(client netip.Addr, endpoint netip.AddrPort, protocol v1.Protocol) bool
	// Translate is told all that the kernel may do in place of the proxy.
	Translate([]Translation)
}

// On is the first node of a cluster, with the others.
func On(c cluster.Cluster) Node {
	members := c.Members()
	node := on(members)
	node.Addresses = append(node.Addresses, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	if c.Dual() {
		for at, each := range members {
			members[at] = each.InSecond()
		}
		second := on(members)
		node.Second = &second
	}
	return node
}

func on(members []cluster.Cluster) Node {
	c := members[0]
	node := Node{
		Name:      c.NodeName,
		Addresses: []netip.Addr{c.NodeAddress},
		Pods:      c.Pods,
		Ranges:    []netip.Prefix{c.Pods, c.Services},
		Balanced:  c.LoadBalancers,
		Ports:     []uint16{c.APIPort, c.KubeletPort},
	}
	for _, each := range members[1:] {
		node.Others = append(node.Others, Other{each.NodeName, each.NodeAddress, each.Pods})
		node.Ranges = append(node.Ranges, each.Pods)
	}
	return node
}

// Run serves Services and host ports until ctx ends. device gets their addresses: one by which pods reach this network
// stack. Node ports are served on the node's addresses. Endpoints see the node, where the kernel does not
// translate, so the filter is asked about their clients.
// ready is called once, when everything that the API held at the start is being served.
func Run(ctx context.Context, config *rest.Config, device string, node Node, filter Filter, ready func()) error {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	owner, err := openOwner(device)
	if err != nil {
		return err
	}
	defer owner.Close()
	if err := os.MkdirAll(hostPortFolder, 0o700); err != nil {
		return err
	}
	p := &proxy{
		table: newTable(owner, filter.Allows), checks: newChecks(node), translate: filter.Translate,
		hostPortFolder: hostPortFolder, node: node, ready: ready,
	}
	return p.run(ctx, client)
}

// proxy joins the sources of change to the table.
type proxy struct {
	table          *table
	checks         checks
	translate      func([]Translation)
	hostPortFolder string
	node           Node
	ready          func()
	refused        []string // what was said last

	services  corelisters.ServiceLister
	endpoints discoverylisters.EndpointSliceLister
}

func (p *proxy) run(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithCancel(ctx)
	changed := changes.NewSignal()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		cancel()
		return fmt.Errorf("watch files: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(p.hostPortFolder); err != nil {
		cancel()
		return fmt.Errorf("watch %s: %w", p.hostPortFolder, err)
	}
	factory, err := p.watch(ctx, client, changed.Notify)
	if err != nil {
		cancel()
		return err
	}
	p.serve(ctx, changed, watcher)
	cancel()
	factory.Shutdown()
	return errors.Join(p.table.close(), p.checks.apply(nil))
}

// watch returns once the first list of each kind is in the cache or ctx ended.
func (p *proxy) watch(ctx context.Context, client kubernetes.Interface, notify func()) (informers.SharedInformerFactory, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(options *metav1.ListOptions) {
		options.LabelSelector = proxied
	}))
	p.services = factory.Core().V1().Services().Lister()
	p.endpoints = factory.Discovery().V1().EndpointSlices().Lister()
	events := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(_, _ any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Services().Informer(),
		factory.Discovery().V1().EndpointSlices().Informer(),
	} {
		if _, err := informer.AddEventHandler(events); err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	notify()
	return factory, nil
}

// serve applies each change. Nothing tells when a port gets free that another program holds.
func (p *proxy) serve(ctx context.Context, changed <-chan struct{}, watcher *fsnotify.Watcher) {
	changes.Follow(ctx, changed, watcher, "Some services are not served", p.sync)
}

// say logs what is refused now and was not before: the same sentences come with every look.
func (p *proxy) say(ctx context.Context, refused []string) {
	for _, each := range refused {
		if _, known := slices.BinarySearch(p.refused, each); !known {
			klog.FromContext(ctx).Info("Not served", "why", each)
		}
	}
	p.refused = refused
}

func (p *proxy) sync(ctx context.Context) error {
	all, err := p.services.List(labels.Everything())
	if err != nil {
		return err
	}
	endpoints, err := p.endpoints.List(labels.Everything())
	if err != nil {
		return err
	}
	pods, err := readHostPorts(p.hostPortFolder)
	want := desired(all, endpoints, pods, p.node)
	p.say(ctx, want.Refused)
	err = errors.Join(err, p.table.apply(ctx, want), p.checks.apply(want.Checks))
	p.translate(want.translations(p.node))
	if p.ready != nil {
		p.ready()
		p.ready = nil
	}
	return err
}
