package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandkube/node/components"
)

// endSignal asks a node to end in order, as it asks other inits (systemd(1), SIGPWR). SIGTERM is the kubelet's.
const endSignal = unix.SIGPWR

// Patience with what ends; what it wrote is safe whether it does or not.
const (
	apiPatience        = 15 * time.Second
	checkpointPatience = time.Minute
)

// endInOrder has the node end by some work when it is asked to. What fails meanwhile is no failure.
func (n *node) endInOrder(asked func(), work func()) {
	go func() {
		asked()
		n.once.Do(func() {
			work()
			n.tenant.leave()
			n.tenant.tell("failed: node: it was stopped while it started")
			os.Exit(0)
		})
	}()
}

// signalled returns when this process gets the signal.
func signalled() func() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endSignal)
	return func() { <-signals }
}

// end ends pods, API and datastore, in this order.
func (c *control) end() {
	ctx := context.Background()
	klog.InfoS("Ending the pods")
	var others sync.WaitGroup
	for _, each := range c.members {
		others.Go(each.end)
	}
	if err := components.EndPods(ctx); err != nil {
		klog.ErrorS(err, "Ending the pods")
	}
	others.Wait()
	c.begun.Lock()
	stop := c.stopAPI
	c.begun.Unlock()
	if stop == nil {
		return
	}
	klog.InfoS("Ending the API server")
	stop()
	select {
	case <-c.served:
	case <-time.After(apiPatience):
		klog.InfoS("The API server has not ended", "patience", apiPatience)
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointPatience)
	defer cancel()
	klog.InfoS("Writing the datastore's log back")
	if err := components.Checkpoint(ctx); err != nil {
		klog.ErrorS(err, "Writing the datastore's log back")
	}
}
