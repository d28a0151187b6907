package main

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"k8s.io/component-base/version"

	"sandkube/node/boot"
	"sandkube/node/components"
	"sandkube/node/dns"
	"sandkube/node/manifests"
	"sandkube/node/pki"
	"sandkube/node/services"
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
	mounts := func(context.Context) error { return errors.Join(n.clear(), boot.Mounts(n.plan, n.keep)) }
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
		err := components.Containerd(ctx, n.sink.Component("containerd"), n.plan.Runc(), n.settings.Containerd.Arguments, ready)
		return lastWord("containerd", n.sink.Tail("containerd"), err)
	}
	return []units.Unit{
		{Name: "containerd", Needs: prepared, Deadline: slow, Run: run, Again: true},
	}
}

// control is what the units of Kubernetes share: each part is set by the unit that makes it.
type control struct {
	*node
	components *components.Kubernetes
	listener   net.Listener
	earlier    components.Earlier // what a datastore that was kept says of an earlier boot
	begun      sync.Mutex
	stopAPI    context.CancelFunc // nil until the API server runs
	served     chan struct{}      // closed when it has ended
}

func newControl(n *node) *control { return &control{node: n, served: make(chan struct{})} }

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
		{Name: "scheduler", Needs: api, Silent: true, Run: c.schedule},
		{Name: "controllers", Owner: "controller-manager", Needs: running, Deadline: slow, Run: c.manage, Ready: c.controllers},
		{Name: "services", Needs: api, Deadline: slow, Run: c.services},
		{Name: "dns", Needs: api, Deadline: slow, Run: c.dns},
	}
	return slices.DeleteFunc(table, func(one units.Unit) bool { return c.settings.Disabled(one.Name) })
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
	credentials, err := pki.Cluster(components.PKI, c.cluster.Server(), pki.Names{
		Node:           c.cluster.NodeName,
		NodeAddress:    c.cluster.NodeAddress.AsSlice(),
		ServiceAddress: c.cluster.API.AsSlice(),
		Domain:         c.cluster.Domain,
	}, time.Now())
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
func (c *control) history(ctx context.Context) (err error) {
	if c.keep {
		c.earlier, err = components.History(ctx, c.client(pki.Admin), c.cluster.NodeName)
	}
	return err
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

// nodeReady also sees to the memory of the boot, which leaves much garbage: first pods start right after it; then the
// node is mostly idle, and memory counts for more than time.
func (c *control) nodeReady(ctx context.Context) error {
	if err := components.NodeReady(ctx, c.client(pki.Admin), c.cluster.NodeName, c.earlier); err != nil {
		return err
	}
	for _, after := range []time.Duration{10 * time.Second, 30 * time.Second} {
		time.AfterFunc(after, func() {
			debug.SetGCPercent(40)
			boot.Trim()
		})
	}
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

func (c *control) schedule(ctx context.Context, _ func()) error {
	return c.components.Scheduler(ctx)
}

func (c *control) manage(ctx context.Context, _ func()) error {
	return c.components.ControllerManager(ctx)
}

func (c *control) controllers(ctx context.Context) error {
	return components.ControllersRun(ctx, c.client(pki.Admin), c.earlier)
}

func (c *control) services(ctx context.Context, ready func()) error {
	return services.Run(ctx, c.client(pki.Services), boot.Device(c.plan, c.cluster), services.On(c.cluster), sync.OnceFunc(ready))
}

func (c *control) dns(ctx context.Context, ready func()) error {
	return dns.Run(ctx, components.Kubeconfig(pki.DNS), c.cluster.Domain, c.cluster.DNS, sync.OnceFunc(ready))
}
