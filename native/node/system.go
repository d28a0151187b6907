package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"sandkube/node/cluster"
	"sandkube/node/components"
	"sandkube/node/dns"
	"sandkube/node/manifests"
	"sandkube/node/pki"
	"sandkube/node/settings"
	"sandkube/node/system"
)

const (
	systemFolder = "/run/sandkube/system" // filled in by boot.Configure
	definitions  = "/usr/share/sandkube/definitions"
)

// system has the system pods deployed, once the node is whole and has started what others want of it at once. One that cannot be
// is a line of the log `system`: a node without it is whole all the same.
func (c *control) system(ctx context.Context) error {
	began := time.Now()
	parts, err := system.Read(systemFolder, definitions, c.unwanted)
	if err != nil {
		return err
	}
	if err := components.APIHealthy(ctx, c.client(pki.Admin)); err != nil {
		return err
	}
	if !c.settings.Disabled(settings.DNS) {
		go c.sink.Run(settings.DNS, func() {
			if err := c.publishCorefile(ctx); err != nil {
				fmt.Fprintf(c.sink.Component(settings.DNS), "there is no Corefile to change: %v\n", err)
			}
		})
	}
	if err := components.OthersFirst(ctx, c.client(pki.Admin)); err != nil {
		return err
	}
	for _, part := range parts {
		go c.sink.Run("system", func() {
			log := c.sink.Component("system")
			switch err := c.deploy(ctx, part); {
			case err != nil:
				fmt.Fprintf(log, "%s is not there: %v\n", part.Name, err)
			case !part.Disabled:
				fmt.Fprintf(log, "%s was ready %.2f s after the node was whole\n", part.Name, time.Since(began).Seconds())
			}
		})
	}
	return nil
}

// publishCorefile leaves alone what a user made of the one that there is.
func (c *control) publishCorefile(ctx context.Context) error {
	other := cluster.NamesOutside
	if c.cluster.Outside.IsValid() {
		other = netip.Addr{}
	}
	text := func(outside netip.Addr) string { return dns.Corefile(c.cluster.Domain, outside, c.cluster.Dual()) }
	return dns.Publish(ctx, c.client(pki.Admin), text(c.cluster.Outside), text(other))
}

// unwanted says whether a part is disabled. All of them reach the API by its Service.
func (c *control) unwanted(part string) bool {
	return c.settings.Disabled(part) || c.settings.Disabled(settings.Services)
}

// deploy returns when a part is ready. One that is disabled is removed, where data that were kept may have it.
func (c *control) deploy(ctx context.Context, part system.Part) error {
	config := c.client(pki.Admin)
	if part.Disabled {
		if !c.keep {
			return nil
		}
		return manifests.Remove(ctx, config, part.All())
	}
	ca, err := pki.Read(components.PKI, pki.CA)
	if err != nil {
		return err
	}
	if err := part.Certify(ca, time.Now()); err != nil {
		return err
	}
	if err := manifests.Add(ctx, config, part.Definitions); err != nil {
		return err
	}
	if err := manifests.Deploy(ctx, config, []manifests.Set{part.Objects}); err != nil {
		return err
	}
	for _, each := range part.Workloads() {
		if err := components.Available(ctx, config, each.Kind, each.Namespace, each.Name); err != nil {
			return err
		}
	}
	return manifests.Deploy(ctx, config, []manifests.Set{part.Served})
}
