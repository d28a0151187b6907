package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	"sandkube/node/components"
	"sandkube/node/dns"
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
func (n *node) preparation(options options) []units.Unit {
	mounts := func(context.Context) error { return errors.Join(n.clear(), boot.Mounts(n.plan)) }
	settings := func(context.Context) error { return errors.Join(boot.Settings(n.plan), n.configure()) }
	network := func(context.Context) error {
		err := boot.Network(boot.Device(n.plan), boot.NodeAddress, components.DNSAddress)
		if err == nil && options.api >= 0 {
			err = n.forwardAPI(options.api)
		}
		return err
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
		return components.Containerd(ctx, n.sink.Component("containerd"), n.plan.Runc(), ready)
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
}

// kubernetes is the control plane, the kubelet, and what a cluster has beside them.
func (n *node) kubernetes() []units.Unit {
	c := &control{node: n}
	api := []string{"apiserver"}
	return []units.Unit{
		{Name: "certificates", Owner: "node", Needs: prepared, Deadline: quick, Do: c.certify},
		{Name: "datastore", Needs: prepared, Deadline: quick, Run: c.datastore},
		{Name: "construction", Owner: "node", Needs: prepared, Deadline: quick, Silent: true, Do: c.construct},
		{Name: "apiserver", Needs: []string{"certificates", "datastore", "construction"}, Deadline: slow, Run: c.serve, Ready: c.answers},
		{Name: "ready", Owner: "kubelet", Needs: []string{"containerd", "apiserver"}, Deadline: slow, Run: c.kubelet, Ready: c.nodeReady},
		{Name: "accounts", Owner: "apiserver", Needs: api, Deadline: slow, Do: c.accounts},
		{Name: "service", Owner: "apiserver", Needs: api, Deadline: slow, Do: c.service},
		{Name: "scheduler", Needs: api, Silent: true, Run: c.schedule},
		{Name: "controllers", Owner: "controller-manager", Needs: api, Deadline: slow, Run: c.manage, Ready: c.controllers},
		{Name: "services", Needs: api, Deadline: slow, Run: c.services},
		{Name: "dns", Needs: api, Deadline: slow, Run: c.dns},
	}
}

func (c *control) certify(context.Context) error {
	credentials, err := components.Credentials(components.Server)
	if err != nil {
		return err
	}
	c.stages.Credentials(credentials)
	return c.tenant.handOver(credentials)
}

func (c *control) datastore(ctx context.Context, ready func()) error {
	return components.Datastore(ctx, components.Seed, ready)
}

func (c *control) construct(ctx context.Context) (err error) {
	if c.components, err = components.New(ctx, c.sink.Current("node")); err != nil {
		return err
	}
	c.listener, err = components.Listen()
	return err
}

func (c *control) serve(ctx context.Context, _ func()) error {
	return c.components.APIServer(ctx, c.listener)
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
	if err := components.NodeReady(ctx, c.client(pki.Admin)); err != nil {
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
	return components.ControllersRun(ctx, c.client(pki.Admin))
}

func (c *control) services(ctx context.Context, ready func()) error {
	return services.Run(ctx, c.client(pki.Services), boot.Device(c.plan), services.On(cluster.Default), sync.OnceFunc(ready))
}

func (c *control) dns(ctx context.Context, ready func()) error {
	address := netip.MustParseAddr(components.DNSAddress)
	return dns.Run(ctx, components.Kubeconfig(pki.DNS), components.Domain, address, sync.OnceFunc(ready))
}
