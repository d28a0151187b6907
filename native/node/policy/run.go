package policy

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/fsnotify/fsnotify"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sandkube/node/changes"
	"sandkube/node/cluster"
	"sandkube/node/iptables"
	"sandkube/node/services"
)

// filterFile is there when the kernel may have a table of ours, from an earlier process too. Tests have another.
var filterFile = "/run/sandkube/filtered"

// Run has the policies of the API be obeyed until ctx ends. filter is told of them. Without a policy nothing but policies is
// watched, and the kernel filters nothing; it translates for Services in any case. hindrance says why pods cannot be told apart here: then each policy gets an event
// that says so. ready is called once, when the policies that there were at the start are obeyed.
func Run(ctx context.Context, config *rest.Config, of cluster.Cluster, hindrance string, filter *Filter, ready func()) error {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(leaseFolder, 0o700); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer watcher.Close()
	e := &enforcer{
		cluster: of, filter: filter, ready: ready, hindrance: hindrance, watcher: watcher,
		replace: iptables.Replace, complaints: newComplaints(client),
	}
	_, err = os.Stat(filterFile)
	e.filtering = err == nil
	return e.run(ctx, client)
}

// enforcer joins the sources of change to the filter.
type enforcer struct {
	cluster    cluster.Cluster
	filter     *Filter
	ready      func()
	hindrance  string
	watcher    *fsnotify.Watcher
	replace    func(iptables.Table) error
	complaints *complaints

	policies  networkinglisters.NetworkPolicyLister
	around    *around // nil until there is a policy
	filtering bool
	// the kernel cannot do what the proxy would have it do
	untranslatable bool
	last           []iptables.Table // that the kernel has
}

func (e *enforcer) run(ctx context.Context, client kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Networking().V1().NetworkPolicies()
	e.policies = informer.Lister()
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { e.filter.changed.Notify() },
		UpdateFunc: func(old, new any) {
			if old.(*networking.NetworkPolicy).Generation != new.(*networking.NetworkPolicy).Generation {
				e.filter.changed.Notify()
			}
		},
		DeleteFunc: func(any) { e.filter.changed.Notify() },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	e.filter.changed.Notify()
	changes.Follow(ctx, e.filter.changed, e.watcher, "Some policies are not enforced", func(ctx context.Context) error { return e.sync(ctx, client) })
	return ctx.Err()
}

// sync has all policies be obeyed, or says of each that it is not.
func (e *enforcer) sync(ctx context.Context, client kubernetes.Interface) error {
	policies, err := e.policies.List(labels.Everything())
	if err != nil {
		return err
	}
	if e.hindrance != "" {
		err = e.complaints.say(ctx, policies, e.hindrance)
	} else if err = e.enforce(ctx, client, policies); err != nil {
		_ = e.complaints.say(ctx, policies, err.Error()) // the log has it as well
	} else {
		e.complaints.forget()
	}
	if e.ready != nil {
		e.ready()
		e.ready = nil
	}
	return err
}

// enforce leaves everything as it is where it fails.
func (e *enforcer) enforce(ctx context.Context, client kubernetes.Interface, policies []*networking.NetworkPolicy) error {
	world := World{Node: nodeOf(e.cluster), Policies: policies}
	if len(policies) > 0 {
		if e.around == nil {
			found, err := lookAround(ctx, client, leaseFolders(e.cluster), e.watcher, e.filter.changed.Notify)
			if err != nil {
				return err
			}
			e.around = found
		}
		if err := e.around.fill(&world); err != nil {
			return err
		}
		world.Pods = append(world.Pods, dns(e.cluster))
	}
	rules := Compile(world)
	if err := e.have(ctx, rules); err != nil {
		return err
	}
	e.filter.follow(rules)
	return nil
}

// have has the kernel filter by the rules, and translate as well as it can: the proxy serves what it does not.
func (e *enforcer) have(ctx context.Context, rules *Rules) error {
	if !e.untranslatable {
		translations := e.filter.translated()
		err := e.hand(rules, translations)
		if err == nil || len(translations) == 0 {
			return err
		}
		klog.FromContext(ctx).Error(err, "The kernel does not translate for Services, which the proxy serves all")
		e.untranslatable = true
	}
	return e.hand(rules, nil)
}

// hand gives the kernel the tables, if it does not have them.
func (e *enforcer) hand(rules *Rules, translations []services.Translation) error {
	tables := rules.tables(e.cluster, translations)
	empty := !slices.ContainsFunc(tables, func(each iptables.Table) bool { return len(each.Chains) > 0 })
	if !e.filtering && empty || e.filtering && reflect.DeepEqual(tables, e.last) {
		return nil
	}
	if err := os.WriteFile(filterFile, nil, 0o600); err != nil {
		return err
	}
	e.last = nil // until the kernel has all of them
	for _, table := range tables {
		if err := e.replace(table); err != nil {
			return err
		}
		e.filtering = true // by this one, whatever becomes of the other
	}
	e.last = tables
	if empty {
		e.filtering = false
		return os.Remove(filterFile)
	}
	return nil
}
