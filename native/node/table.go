package main

import (
	"context"
	"errors"
	"math"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"k8s.io/component-base/version"

	"sandkube/node/boot"
	"sandkube/node/components"
	"sandkube/node/fixes"
	"sandkube/node/loadbalancer"
	"sandkube/node/manifests"
	"sandkube/node/pki"
	"sandkube/node/services"
	"sandkube/node/settings"
	"sandkube/node/traffic"
	"sandkube/node/units"
)

// Deadlines of units, from the moment when what they need is ready. They are for what hangs: a machine that gives a
// quarter of a core boots.
const (
	quick = time.Minute
	slow  = 5 * time.Minute
)

// prepared is what every component needs.
var prepared = []string{"network", "images"}

// preparation makes the sandbox what the components expect.
func (n *node) preparation() []units.Unit {
	mounts := func(context.Context) error { return errors.Join(n.clear(), boot.Mounts(n.plan, n.cluster, n.keep)) }
	settings := func(context.Context) error { return errors.Join(boot.Settings(n.plan, n.cluster), n.configure()) }
	network := func(context.Context) error {
		return boot.Network(boot.Device(n.plan, n.cluster), n.cluster, n.addresses()...)
	}
	images := func(context.Context) error { return n.images() }
	return []units.Unit{
		{Name: "mounts", Owner: "node", Deadline: quick, Do: mounts},
		{Name: "settings", Owner: "node", Needs: []string{"mounts"}, Deadline: quick, Do: settings},
		{Name: "network", Owner: "node", Needs: []string{"settings"}, Deadline: quick, Do: network},
		{Name: "images", Owner: "node", Needs: []string{"settings"}, Deadline: quick, Do: images},
	}
}

// runtime is containerd. Its shims and their containers live on when it ends, and it finds them again.
func (n *node) runtime() []units.Unit {
	run := func(ctx context.Context, ready func()) error {
		err := components.Containerd(ctx, n.sink.Component("containerd"), fixes.SealedRunc, n.settings.Containerd.Arguments, ready)
		return lastWord("containerd", n.sink.Tail("containerd"), err)
	}
	seal := func(context.Context) error { return boot.Seal(n.plan.Runc(), fixes.SealedRunc) }
	return []units.Unit{
		{Name: "runc", Owner: "node", Needs: []string{"settings"}, Deadline: quick, Silent: true, Do: seal},
		{Name: "containerd", Needs: append(slices.Clone(prepared), "runc"), Deadline: slow, Run: run, Again: true},
	}
}

// control is what the units of Kubernetes share: each part is set by the unit that makes it.
type control struct {
	*node
	components *components.Kubernetes
	listener   net.Listener
	earlier    components.Earlier // what a datastore that was kept says of an earlier boot
	members    []*member          // the further nodes
	parts      *parts             // of traffic
	begun      sync.Mutex
	stopAPI    context.CancelFunc // nil until the API server runs
	served     chan struct{}      // closed when it has ended
}

func newControl(n *node) *control {
	collect(hasty)
	uuid.EnableRandPool() // each request has one, and each random number of its own would be a system call
	wanted := slices.DeleteFunc([]string{traffic.Services, traffic.DNS}, n.settings.Disabled)
	c := &control{node: n, parts: newParts(append(wanted, traffic.Policy)...), served: make(chan struct{})}
	c.members = c.newMembers()
	return c
}

// units are the control plane, the kubelet, and what a cluster has beside them.
func (c *control) units() []units.Unit {
	api, running := []string{"apiserver"}, []string{"history"}
	table := []units.Unit{
		{Name: "claim", Owner: "node", Needs: prepared, Deadline: quick, Silent: true, Do: c.claim},
		{Name: "certificates", Owner: "node", Needs: []string{"claim"}, Deadline: quick, Do: c.certify},
		{Name: "datastore", Needs: []string{"claim"}, Deadline: quick, Run: c.datastore},
		{Name: "construction", Owner: "node", Needs: prepared, Deadline: quick, Silent: true, Do: c.construct},
		{Name: "apiserver", Needs: []string{"certificates", "datastore", "construction"}, Deadline: slow, Run: c.serve, Ready: c.answers},
		{Name: "history", Owner: "apiserver", Needs: api, Deadline: slow, Silent: true, Do: c.history},
		{Name: "ready", Owner: "kubelet", Needs: []string{"containerd", "history"}, Deadline: slow, Run: c.kubelet, Ready: c.nodeReady},
		{Name: "accounts", Owner: "apiserver", Needs: api, Deadline: slow, Do: c.accounts},
		{Name: "manifests", Needs: api, Deadline: slow, Do: c.manifests},
		{Name: "service", Owner: "apiserver", Needs: api, Deadline: slow, Do: c.service},
		{Name: "admitted", Owner: "apiserver", Needs: api, Deadline: slow, Silent: true, Do: c.admitted},
		{Name: "scheduler", Needs: []string{"admitted"}, Silent: true, Run: c.schedule},
		{Name: "controllers", Owner: "controller-manager", Needs: running, Deadline: slow, Run: c.manage, Ready: c.controllers},
		{Name: settings.LoadBalancer, Needs: []string{"ready"}, Silent: true, Run: c.balance},
		{Name: traffic.Role, Needs: api, Silent: true, Run: c.traffic, Again: true},
		{Name: traffic.Services, Needs: api, Deadline: slow, Do: c.parts.awaits(traffic.Services)},
		{Name: traffic.DNS, Needs: api, Deadline: slow, Do: c.parts.awaits(traffic.DNS)},
	}
	further, names := c.memberUnits()
	table = append(append(table, further...),
		units.Unit{Name: "nodes", Owner: "node", Needs: names, Do: nothing},
		units.Unit{Name: "system", Owner: "node", Needs: c.whole(), Silent: true, Do: c.system},
	)
	return slices.DeleteFunc(table, func(one units.Unit) bool {
		return c.settings.Disabled(one.Name) || one.Name == "nodes" && len(names) == 0
	})
}

// claim sees to it that data that were kept are of a version that this one may go on from.
func (c *control) claim(context.Context) error {
	if !c.keep {
		return nil
	}
	components.Durable()
	return components.Claim(boot.Kept, version.Get().GitVersion)
}

func (c *control) certify(context.Context) error {
	credentials, err := components.Credentials(c.cluster, c.cluster.Server())
	if err != nil {
		return err
	}
	c.stages.Credentials(credentials)
	return c.tenant.handOver(credentials)
}

func (c *control) datastore(ctx context.Context, ready func()) error {
	return components.Datastore(ctx, c.seed(), ready)
}

func (c *control) construct(ctx context.Context) (err error) {
	if c.components, err = components.New(ctx, c.cluster, c.settings, c.sink.Current("node")); err != nil {
		return err
	}
	if c.settings.Audit.Policy != "" {
		if err = divert(c.sink.Component("audit")); err != nil {
			return err
		}
	}
	others, err := c.tenant.listeners()
	if err != nil {
		return err
	}
	c.listener, err = components.Listen(c.cluster, others...)
	return err
}

func (c *control) serve(ctx context.Context, _ func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.begun.Lock()
	c.stopAPI = cancel
	c.begun.Unlock()
	defer close(c.served)
	return c.components.APIServer(ctx, c.listener)
}

// history finds out what the datastore says of an earlier boot, which is no sign of this one.
func (c *control) history(ctx context.Context) error {
	if !c.keep {
		return nil
	}
	names := []string{c.cluster.NodeName}
	for _, each := range c.members {
		names = append(names, each.cluster.NodeName)
	}
	found, err := components.History(ctx, c.client(pki.Admin), names...)
	if err != nil {
		return err
	}
	c.earlier = found[0]
	for at, each := range c.members {
		each.earlier = found[at+1]
	}
	return nil
}

func (c *control) answers(ctx context.Context) error {
	return components.APIAnswers(ctx, c.client(pki.Admin))
}

func (c *control) kubelet(ctx context.Context, _ func()) error {
	if err := components.ContainerdServes(ctx); err != nil {
		return err
	}
	return c.components.Kubelet(ctx)
}

// collection says when garbage is collected: when the heap has grown by so many percent, or all of the memory is near a limit in
// bytes.
type collection struct {
	percent int
	limit   int64
}

var (
	hasty   = collection{400, 256 << 20} // what a boot leaves is collected later: the processor has enough to do
	thrifty = collection{40, math.MaxInt64}
)

func collect(as collection) {
	debug.SetGCPercent(as.percent)
	debug.SetMemoryLimit(as.limit)
}

func (c *control) nodeReady(ctx context.Context) error {
	if err := components.NodeReady(ctx, c.client(pki.Admin), c.cluster.NodeName, c.earlier); err != nil {
		return err
	}
	c.trimLater()
	return nil
}

func (c *control) accounts(ctx context.Context) error {
	return components.EarlyAccounts(ctx, c.client(pki.Admin))
}

// manifests waits until the API server is all up, if there are any: before, it may refuse what is good.
func (c *control) manifests(ctx context.Context) error {
	sets, err := c.sets()
	if err != nil || len(sets) == 0 {
		return err
	}
	if err := components.APIHealthy(ctx, c.client(pki.Admin)); err != nil {
		return err
	}
	return manifests.Deploy(ctx, c.client(pki.Admin), sets)
}

func (c *control) service(ctx context.Context) error {
	return components.APIServed(ctx, c.client(pki.Admin))
}

// admitted waits until clients are let in that only the rules of RBAC let in.
func (c *control) admitted(ctx context.Context) error {
	return traffic.Admits(ctx, c.client(pki.Scheduler))
}

func (c *control) schedule(ctx context.Context, _ func()) error {
	return c.components.Scheduler(ctx)
}

func (c *control) manage(ctx context.Context, _ func()) error {
	return c.components.ControllerManager(ctx)
}

func (c *control) controllers(ctx context.Context) error {
	return components.ControllersRun(ctx, c.client(pki.Admin), c.earlier)
}

// balance gives Services addresses of load balancers.
func (c *control) balance(ctx context.Context, _ func()) error {
	return loadbalancer.Run(ctx, c.client(pki.LoadBalancer), c.cluster.LoadBalancers, c.cluster.Second.LoadBalancers)
}

// traffic runs the process that serves what pods send. It is ready when all parts of it are, each of which is a stage.
func (c *control) traffic(ctx context.Context, ready func()) error {
	settings := traffic.Settings{
		Kubeconfig: components.Kubeconfig(pki.Services),
		Policy:     traffic.PolicySettings{Cluster: c.cluster},
	}
	if c.plan.Used(fixes.PodNetwork) == fixes.Bridge {
		settings.Policy.Hindrance = "pods are ports of a bridge here, where nothing sees what they send to each other"
	}
	if !c.settings.Disabled(traffic.Services) {
		settings.Services = &traffic.ServicesSettings{
			Device: boot.Device(c.plan, c.cluster),
			Node:   services.On(c.cluster),
		}
	}
	if !c.settings.Disabled(traffic.DNS) {
		settings.DNS = &traffic.DNSSettings{
			Kubeconfig: components.Kubeconfig(pki.DNS),
			Domain:     c.cluster.Domain,
			Address:    c.cluster.DNS,
			Outside:    c.cluster.Outside,
			Dual:       c.cluster.Dual(),
		}
	}
	return components.Role{Word: traffic.Role, Told: settings, Log: c.sink.Joined(traffic.Role), Said: func(part []byte) {
		if c.parts.reached(string(part)) {
			ready()
		}
	}}.Run(ctx)
}

// parts are those of traffic, each with a channel that is closed when it serves for the first time.
type parts struct {
	mu      sync.Mutex
	serving map[string]chan struct{}
	left    int
}

func newParts(names ...string) *parts {
	p := &parts{serving: map[string]chan struct{}{}, left: len(names)}
	for _, name := range names {
		p.serving[name] = make(chan struct{})
	}
	return p
}

// reached notes that a part serves; it says whether all do.
func (p *parts) reached(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.serving[name]: // it was started again
	default:
		close(p.serving[name])
		p.left--
	}
	return p.left == 0
}

// awaits returns when a part serves.
func (p *parts) awaits(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-p.serving[name]:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
