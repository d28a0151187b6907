package dns

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Where a cluster's Corefile is, as in any cluster.
const (
	namespace = metav1.NamespaceSystem
	name      = "coredns"
	key       = "Corefile"
)

// Publish makes the ConfigMap with the node's own Corefile, for users to change, if there is none; one that has another's, from
// a start with other settings, gets this one's.
func Publish(ctx context.Context, config *rest.Config, own, other string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return publish(ctx, client.CoreV1().ConfigMaps(namespace), own, other)
}

func publish(ctx context.Context, maps typed.ConfigMapInterface, own, other string) error {
	_, err := maps.Create(ctx, &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Data:       map[string]string{key: own},
	}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	found, err := maps.Get(ctx, name, metav1.GetOptions{})
	if err != nil || found.Data[key] != other {
		return err
	}
	found.Data[key] = own
	_, err = maps.Update(ctx, found, metav1.UpdateOptions{})
	return err
}

// names answers by the cluster's Corefile: by the last one that could be read.
type names struct {
	client  kubernetes.Interface
	config  *rest.Config
	base    string // the node's own Corefile
	own     string // the server's address
	serving atomic.Pointer[chain]
	last    string // what was tried last
}

func newNames(config *rest.Config, base, own string) (*names, error) {
	client, err := kubernetes.NewForConfig(config)
	return &names{client: client, config: config, base: base, own: own}, err
}

// Name is for plugin.Handler.
func (n *names) Name() string { return "names" }

// ServeDNS has the Corefile's plugins answer.
func (n *names) ServeDNS(ctx context.Context, to dns.ResponseWriter, query *dns.Msg) (int, error) {
	if serving := n.serving.Load(); serving != nil {
		return serving.ServeDNS(ctx, to, query)
	}
	return dns.RcodeServerFailure, nil
}

// begin serves by the Corefile that is there, or by the node's own if there is none, or a bad one.
func (n *names) begin(ctx context.Context) error {
	found, err := n.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		if n.use(found, nil); n.serving.Load() != nil {
			return nil
		}
	} else {
		n.last = n.base
		if !apierrors.IsNotFound(err) {
			klog.ErrorS(err, "The Corefile cannot be read, the node's own is used")
		}
	}
	return n.serve(n.base, nil)
}

// follow serves by each Corefile that there is from now on, until ctx ends.
func (n *names) follow(ctx context.Context) error {
	maps := n.client.CoreV1().ConfigMaps(namespace)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	all := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return maps.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return maps.Watch(ctx, options)
		},
	}
	changes := make(chan *v1.ConfigMap, 64)
	tell := func(object any) {
		if found, ok := object.(*v1.ConfigMap); ok {
			changes <- found
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: all,
		ObjectType:    &v1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    tell,
			UpdateFunc: func(_, object any) { tell(object) },
			DeleteFunc: func(any) { changes <- nil },
		},
	})
	go informer.RunWithContext(ctx)
	for {
		select {
		case next := <-changes:
			n.use(next, changes)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// use serves by a Corefile, if it can be read; nil is the node's own. What becomes of it is an event of the ConfigMap. Where it
// takes its time, the next one ends that.
func (n *names) use(found *v1.ConfigMap, changes <-chan *v1.ConfigMap) {
	text, there := n.base, true
	if found != nil {
		text, there = found.Data[key]
	}
	if there && text == n.last {
		return
	}
	n.last = text
	err := errors.New("the ConfigMap has no key Corefile")
	if there {
		err = n.serve(text, changes)
	}
	switch {
	case err != nil:
		klog.ErrorS(err, "The Corefile is not used, the one before it is")
		n.event(found, v1.EventTypeWarning, "CorefileRefused", "the one before it goes on: "+err.Error())
	case found != nil:
		klog.InfoS("The Corefile is used", "resourceVersion", found.ResourceVersion)
		n.event(found, v1.EventTypeNormal, "CorefileUsed", "names are served by it")
	}
}

// serve serves by a text.
func (n *names) serve(text string, changes <-chan *v1.ConfigMap) error {
	next, err := read(text, n.config, n.own)
	if err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() { started <- next.start() }() // which nothing can break off
	select {
	case err = <-started:
	case newer := <-changes:
		next.stop()
		n.use(newer, changes)
		return errors.New("there was a newer one before its plugins had begun")
	}
	if err != nil {
		return err
	}
	if old := n.serving.Swap(next); old != nil {
		old.stop()
	}
	return nil
}

func (n *names) event(about *v1.ConfigMap, kind, reason, message string) {
	if about == nil {
		return
	}
	now := metav1.NewTime(time.Now())
	_, err := n.client.CoreV1().Events(namespace).Create(context.Background(), &v1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", name, now.UnixNano()), Namespace: namespace}, // as client-go's
		InvolvedObject: v1.ObjectReference{
			APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: name, UID: about.UID, ResourceVersion: about.ResourceVersion,
		},
		Type: kind, Reason: reason, Message: message, Count: 1,
		FirstTimestamp: now, LastTimestamp: now,
		Source: v1.EventSource{Component: "coredns"},
	}, metav1.CreateOptions{})
	if err != nil {
		klog.ErrorS(err, "No event is made of it")
	}
}
