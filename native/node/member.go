package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	"sandkube/node/components"
	"sandkube/node/fixes"
	"sandkube/node/pki"
	"sandkube/node/settings"
	"sandkube/node/stages"
	"sandkube/node/units"
)

const memberRole = "member"

// membership is what a further node reads from standard input.
type membership struct {
	Number   int
	Settings settings.Settings
	Plan     fixes.Plan
	Keep     bool
}

// checkMembers says why there cannot be several nodes, if there are to be.
func (n *node) checkMembers() error {
	switch {
	case n.cluster.Nodes == 1:
		return nil
	case n.plan.Intercepts():
		return errors.New("there can be one node only: the kubelet of this sandbox needs the interceptor, which further ones do not have")
	case boot.Device(n.plan, n.cluster) != boot.Loopback:
		return errors.New("there can be one node only: the network of this sandbox does not forward, and pods of several nodes would not reach each other")
	}
	return nil
}

// checkEgress says why pods can have no way out, if they are to.
func (n *node) checkEgress() error {
	if n.cluster.Outside.IsValid() && boot.Device(n.plan, n.cluster) != boot.Loopback {
		return errors.New("pods can have no way out: the network of this sandbox does not forward")
	}
	return nil
}

// checkFamilies says why there cannot be two families of addresses, if there are to be.
func (n *node) checkFamilies() error {
	const alone = "there can be IPv4 only: the network of this sandbox does not forward"
	switch {
	case !n.cluster.Dual():
		return nil
	case boot.Device(n.plan, n.cluster) != boot.Loopback:
		return errors.New(alone)
	case unix.Access(boot.Forwarding6, unix.F_OK) != nil:
		return errors.New(alone + " IPv6")
	}
	return nil
}

// member is a further node, for the first one: a process of this program with folders of its own.
type member struct {
	*control
	cluster cluster.Cluster
	earlier components.Earlier
	process atomic.Pointer[os.Process] // nil until it runs
	ended   chan struct{}
}

func (c *control) newMembers() (all []*member) {
	for _, each := range c.cluster.Members()[1:] {
		all = append(all, &member{control: c, cluster: each, ended: make(chan struct{})})
	}
	return all
}

// memberUnits are one a further node, with their names.
func (c *control) memberUnits() (table []units.Unit, names []string) {
	for _, each := range c.members {
		name := "node" + each.cluster.Suffix()
		names = append(names, name)
		table = append(table, units.Unit{
			Name: name, Owner: "kubelet" + each.cluster.Suffix(), Needs: []string{"history"}, Deadline: slow, Silent: true,
			Run: each.run, Ready: each.ready,
		})
	}
	return table, names
}

// run runs the process. Whatever it says of its end ends the node, by the component's name with the node's number.
func (m *member) run(ctx context.Context, _ func()) error {
	defer close(m.ended)
	if err := errors.Join(boot.MakeMember(m.cluster), components.MemberCredentials(m.cluster, m.cluster.Folder())); err != nil {
		return err
	}
	err := components.Role{
		Word: memberRole,
		Told: membership{m.cluster.Number, m.settings, m.plan, m.keep},
		Log:  m.sink.JoinedWith("node", m.cluster.Suffix()),
		Said: m.hear,
		// What is mounted in the copy is private to it: Go sees to that.
		Attributes: &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS},
		Begun:      m.runs,
	}.Run(ctx)
	return fmt.Errorf("the process of node %s ended: %w", m.cluster.NodeName, err)
}

// runs notes the process, for whoever wants to see what it sees, too.
func (m *member) runs(process *os.Process) {
	m.process.Store(process)
	path := filepath.Join(m.cluster.Folder(), "pid")
	if err := os.WriteFile(path, []byte(strconv.Itoa(process.Pid)), 0o600); err != nil {
		klog.ErrorS(err, "Noting a process", "node", m.cluster.NodeName)
	}
}

// hear takes in what the process says of its stages, which may be why it ends.
func (m *member) hear(line []byte) {
	var said stages.Line
	if json.Unmarshal(line, &said) == nil && said.Type == "failed" {
		m.failed(said.Component+m.cluster.Suffix(), errors.New(said.Error), said.Log)
	}
}

func (m *member) ready(ctx context.Context) error {
	return components.NodeReady(ctx, m.client(pki.Admin), m.cluster.NodeName, m.earlier)
}

// end has the process end its pods and itself.
func (m *member) end() {
	if process := m.process.Load(); process != nil && process.Signal(endSignal) == nil {
		<-m.ended
	}
}

// runMember is the role member. It does not return.
func runMember(input io.Reader) {
	n := newNode(time.Now())
	var told membership
	if err := json.NewDecoder(input).Decode(&told); err != nil {
		n.fail("node", err)
	}
	n.plan, n.keep, n.given = told.Plan, told.Keep, newGiven(told.Settings)
	n.cluster = n.cluster.Member(told.Number)
	runtime.UnlockOSThread() // see main
	n.endInOrder(signalled(), func() {
		if err := components.EndPods(n.ctx); err != nil {
			klog.ErrorS(err, "Ending the pods")
		}
	})
	n.start(n.memberTable())
	select {}
}

// memberTable is what a further node is made of.
func (n *node) memberTable() []units.Unit {
	mounts := func(context.Context) error {
		return errors.Join(boot.MemberMounts(n.cluster, n.keep), unix.Sethostname([]byte(n.cluster.NodeName)))
	}
	settings := func(context.Context) error {
		return errors.Join(n.configure(), boot.MakeCgroup("/sys/fs/cgroup", n.cluster.Cgroup()))
	}
	images := func(context.Context) error { return n.images() }
	kubelet := func(ctx context.Context, _ func()) error {
		if err := components.ContainerdServes(ctx); err != nil {
			return err
		}
		made, err := components.NewKubelet(ctx, n.cluster, n.given.settings, n.sink.Current("node"))
		if err != nil {
			return err
		}
		n.trimLater()
		return made.Kubelet(ctx)
	}
	table := []units.Unit{
		{Name: "mounts", Owner: "node", Deadline: quick, Do: mounts},
		{Name: "settings", Owner: "node", Needs: []string{"mounts"}, Deadline: quick, Do: settings},
		{Name: "network", Owner: "node", Needs: []string{"settings"}, Silent: true, Do: nothing}, // the first node has it for all
		{Name: "images", Owner: "node", Needs: []string{"settings"}, Deadline: quick, Do: images},
	}
	table = append(table, n.runtime()...)
	return append(table, units.Unit{Name: "kubelet", Needs: []string{"containerd"}, Silent: true, Run: kubelet})
}

// trimLater sees to the memory of the boot, which leaves much garbage: first pods start right after it; then the node is mostly
// idle, and memory counts for more than time.
func (n *node) trimLater() {
	for _, after := range []time.Duration{10 * time.Second, 30 * time.Second} {
		time.AfterFunc(after, func() {
			collect(thrifty)
			boot.Trim()
		})
	}
}
