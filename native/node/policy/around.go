package policy

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"sandkube/node/cluster"
)

// around is what policies speak of: pods, by the addresses that they were given here, and namespaces.
type around struct {
	folders    []string // of leases, one a node
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
}

// lookAround returns when all that the API holds is known; from then on notify is called for what changes of it, and the
// watcher tells of addresses.
func lookAround(ctx context.Context, client kubernetes.Interface, folders []string, watcher *fsnotify.Watcher, notify func()) (*around, error) {
	for _, each := range folders {
		if err := watcher.Add(each); err != nil {
			return nil, fmt.Errorf("watch %s: %w", each, err)
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trimmed))
	core := factory.Core().V1()
	found := &around{folders: folders, pods: core.Pods().Lister(), namespaces: core.Namespaces().Lister()}
	events := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() },
		UpdateFunc: func(old, new any) { // pods change their status all the time
			was, is := old.(metav1.Object), new.(metav1.Object)
			if was.GetUID() != is.GetUID() || !maps.Equal(was.GetLabels(), is.GetLabels()) {
				notify()
			}
		},
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{core.Pods().Informer(), core.Namespaces().Informer()} {
		if _, err := informer.AddEventHandler(events); err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return found, ctx.Err()
}

// trimmed leaves of an object what is asked of it.
func trimmed(object any) (any, error) {
	switch one := object.(type) {
	case *v1.Pod:
		small := &v1.Pod{ObjectMeta: meta(one.ObjectMeta)}
		small.Spec.Containers = []v1.Container{{Ports: podPorts(one)}}
		return small, nil
	case *v1.Namespace:
		return &v1.Namespace{ObjectMeta: meta(one.ObjectMeta)}, nil
	}
	return object, nil
}

func meta(of metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: of.Namespace, Name: of.Name, UID: of.UID, ResourceVersion: of.ResourceVersion, Labels: of.Labels}
}

// fill adds what there is now. An address whose pod the API has no more, or not yet, is nobody's.
func (a *around) fill(world *World) error {
	held := map[netip.Addr]lease{}
	for _, each := range a.folders {
		found, err := leases(each)
		if err != nil {
			return err
		}
		maps.Copy(held, found)
	}
	for address, each := range held {
		pod, err := a.pods.Pods(each.Pod.Namespace).Get(each.Pod.Name)
		if err != nil || pod.UID != each.Pod.UID {
			continue
		}
		one := Pod{Namespace: pod.Namespace, Labels: pod.Labels, Address: address, Ports: podPorts(pod)}
		world.Pods = append(world.Pods, one)
		if each.Second.IsValid() {
			one.Address = each.Second
			world.Pods = append(world.Pods, one)
		}
	}
	namespaces, err := a.namespaces.List(labels.Everything())
	if err != nil {
		return err
	}
	world.Namespaces = map[string]labels.Set{}
	for _, each := range namespaces {
		world.Namespaces[each.Name] = each.Labels
	}
	return nil
}

// nodeOf are the addresses that a connection from the node may come from: to one of a Service it comes from the same.
func nodeOf(of cluster.Cluster) set {
	all := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), of.Services, of.LoadBalancers}
	if of.Dual() {
		all = append(all, alone(netip.IPv6Loopback()), of.Second.Services, of.Second.LoadBalancers)
	}
	for _, member := range of.Members() {
		for _, each := range member.NodeAddresses() {
			all = append(all, alone(each))
		}
	}
	return setOf(all...)
}

// dns is the DNS server, as if it were a pod.
func dns(of cluster.Cluster) Pod {
	return Pod{
		Namespace: metav1.NamespaceSystem,
		Labels:    labels.Set{"k8s-app": "kube-dns"},
		Address:   of.DNS,
		Ports: []v1.ContainerPort{
			{Name: "dns", ContainerPort: 53, Protocol: v1.ProtocolUDP},
			{Name: "dns-tcp", ContainerPort: 53, Protocol: v1.ProtocolTCP},
		},
	}
}
