package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	golog "log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	"sandkube/node/components"
	"sandkube/node/dns"
	"sandkube/node/fixes"
	"sandkube/node/images"
	"sandkube/node/logs"
	"sandkube/node/manifests"
	"sandkube/node/pki"
	"sandkube/node/services"
	"sandkube/node/stages"
)

const (
	imageTarget  = "/var/lib/containerd"
	manifestPath = "/run/sandkube/manifests"
	reapPeriod   = 10 * time.Second
	trialFolder  = "/var/lib" // on the root file system until boot.Mounts

	interceptedRole = "kubernetes"
	planFile        = "/run/sandkube/fixes.json"
	rulesFile       = "/run/sandkube/interceptor.rules"
	startedVariable = "SANDKUBE_STARTED" // nanoseconds since the epoch
	readyDescriptor = 3                  // of the role kubernetes: at its end when containerd serves
)

// node is what the parts of the boot share.
type node struct {
	ctx     context.Context
	stages  *stages.Reporter
	sink    *logs.Sink
	plan    fixes.Plan
	tenant  *tenant // nil if the node has its sandbox for itself
	once    sync.Once
	awaited atomic.Int32 // stages of whole that were not reached yet
	running sync.WaitGroup
}

func newNode(started time.Time) *node {
	n := &node{
		ctx:    context.Background(),
		stages: stages.New(os.Stdout, started, time.Now),
		sink:   logs.New(os.Stderr),
	}
	n.awaited.Store(int32(len(whole)))
	n.sink.Watch(func(component, text string) {
		if err := n.plan.Diagnose(text); err != nil {
			n.fail(component, err)
		}
	})
	catchLogs(n.sink.Current("node"))
	klog.OsExit = n.exited
	logrus.StandardLogger().ExitFunc = n.exited
	return n
}

// exited is called in place of os.Exit by the loggers of libraries, on behalf of the component that has the goroutine:
// it ends as one does that returns. (The kubelet's own calls of os.Exit go this way by a patch.)
func (n *node) exited(status int) {
	component := n.sink.Running("node")
	n.fail(component, fmt.Errorf("it exited with status %d: %s", status, n.sink.Complaint(component)))
}

// bootNode prepares the sandbox and starts everything. It does not return.
func bootNode(options options) {
	started := time.Now()
	n := newNode(started)
	if options.inPlace {
		if err := n.settle(options); err != nil {
			n.fail("node", err)
		}
	}
	prepare := []struct {
		stage string
		do    func() error
	}{
		{"probe", func() (err error) {
			_, n.plan, err = fixes.Decide(trialFolder, options.overrides, options.entered, false)
			if err == nil && n.plan.Used(fixes.MountRight) != fixes.Nothing && !options.entered {
				err = fmt.Errorf("fix %s is for a node in place: its script makes the user namespace", fixes.MountRight)
			}
			runtime.UnlockOSThread() // see main
			return err
		}},
		{"mounts", func() error { return errors.Join(n.clear(), boot.Mounts(n.plan)) }},
		{"settings", func() error { return errors.Join(boot.Settings(n.plan), n.configure()) }},
		{"network", func() error { return boot.Network(boot.Device(n.plan), boot.NodeAddress, components.DNSAddress) }},
		{"images", n.images},
	}
	for _, step := range prepare {
		if err := step.do(); err != nil {
			fmt.Fprintln(n.sink.Component("node"), err) // which may be diagnosed
			n.fail(step.stage, err)
		}
		n.stages.Reached(step.stage)
	}
	go boot.Reap(n.ctx, reapPeriod)
	if options.api >= 0 {
		n.forwardAPI(options.api)
	}
	if n.plan.Intercepts() {
		n.delegate(started, options.everyCall)
	} else {
		containerd := make(chan struct{})
		n.containerd(func() { close(containerd) })
		n.kubernetes(containerd)
	}
	select {}
}

// configure fills in what depends on the plan.
func (n *node) configure() error {
	plan, err := json.Marshal(n.plan)
	if err != nil {
		return err
	}
	return errors.Join(
		boot.Configure(n.plan),
		os.WriteFile(planFile, plan, 0o600),
		os.WriteFile(rulesFile, []byte(n.plan.Rules(boot.PreparedSettings)), 0o600),
	)
}

// clear removes the cgroups that a node in place left which was killed.
func (n *node) clear() error {
	if n.tenant == nil {
		return nil
	}
	return boot.LeaveCgroups()
}

func (n *node) images() error {
	if n.plan.Used(fixes.PauseImage) != fixes.Store {
		return nil
	}
	return images.Mount(fixes.ImageStore, imageTarget)
}

// catchLogs sends what libraries log to one writer.
func catchLogs(output io.Writer) {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for _, each := range []string{"-logtostderr=false", "-one_output=true", "-stderrthreshold=FATAL"} {
		if err := flags.Parse([]string{each}); err != nil {
			panic(err)
		}
	}
	klog.SetOutput(output)
	logrus.SetOutput(output)
	golog.SetOutput(output)
}

// containerd starts it; ready is called when it serves.
func (n *node) containerd(ready func()) {
	n.component("containerd", func() error {
		return components.Containerd(n.ctx, n.sink.Component("containerd"), n.plan.Runc(), sync.OnceFunc(func() {
			n.stages.Reached("containerd")
			ready()
		}))
	})
}

// delegate runs Kubernetes under the interceptor. containerd stays outside: what it starts must see its own
// files, and a process that ever was traced cannot do without its tracer.
func (n *node) delegate(started time.Time, everyCall bool) {
	read, write, err := os.Pipe()
	if err != nil {
		n.fail("node", err)
	}
	n.containerd(func() { _ = write.Close() })
	program, err := os.Executable()
	if err != nil {
		n.fail("node", err)
	}
	words := []string{"--rules", rulesFile}
	if everyCall {
		words = append(words, "--all")
	}
	command := exec.CommandContext(n.ctx, fixes.Interceptor, append(words, "--", program, interceptedRole)...)
	command.Env = append(os.Environ(), startedVariable+"="+strconv.FormatInt(started.UnixNano(), 10))
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.ExtraFiles = []*os.File{read}
	if n.tenant != nil { // the other process knows when there is something to hand over
		for _, each := range []*os.File{n.tenant.kubeconfig, n.tenant.outcome} {
			if each == nil {
				each = os.Stderr
			}
			command.ExtraFiles = append(command.ExtraFiles, each)
		}
		command.Args = append(command.Args, fmt.Sprintf("--kubeconfig-fd=%d", readyDescriptor+1), fmt.Sprintf("--outcome-fd=%d", readyDescriptor+2))
	}
	n.component("interceptor", command.Run)
}

// runIntercepted is the role kubernetes. It does not return.
func runIntercepted(options options) {
	started := time.Now()
	if nanoseconds, err := strconv.ParseInt(os.Getenv(startedVariable), 10, 64); err == nil {
		started = time.Unix(0, nanoseconds)
	}
	n := newNode(started)
	if options.kubeconfig >= 0 {
		n.tenant = &tenant{
			kubeconfig: os.NewFile(uintptr(options.kubeconfig), ""),
			outcome:    os.NewFile(uintptr(options.outcome), ""),
			claimed:    true, // by the process that started this one
		}
	}
	data, err := os.ReadFile(planFile)
	if err == nil {
		err = json.Unmarshal(data, &n.plan)
	}
	if err != nil {
		n.fail("node", err)
	}
	containerd := make(chan struct{})
	go func() {
		_, _ = os.NewFile(readyDescriptor, "ready").Read(make([]byte, 1))
		close(containerd)
	}()
	n.kubernetes(containerd)
	select {}
}

// kubernetes brings up the components, each as soon as what it needs is there.
func (n *node) kubernetes(containerd <-chan struct{}) {
	datastore := make(chan struct{})
	n.component("datastore", func() error {
		if err := components.Datastore(n.ctx, &n.running); err != nil {
			return err
		}
		n.reached("datastore", datastore)()
		<-n.ctx.Done()
		return n.ctx.Err()
	})
	kubernetes, err := components.New(n.ctx, n.sink.Current("node"))
	if err != nil {
		n.fail("node", err)
	}
	credentials, err := pki.Cluster(components.PKI, components.Server, pki.Names{
		Node:           components.NodeName,
		NodeAddress:    net.ParseIP(boot.NodeAddress),
		ServiceAddress: net.ParseIP(components.ServiceAddress),
		Domain:         components.Domain,
	}, time.Now())
	if err != nil {
		n.fail("certificates", err)
	}
	n.stages.Reached("certificates")
	n.stages.Credentials(credentials)
	if err := n.tenant.handOver(credentials); err != nil {
		n.fail("certificates", err)
	}
	admin := n.client(pki.Admin)
	<-datastore
	n.component("apiserver", func() error { return kubernetes.APIServer(n.ctx) })
	if err := components.APIAnswers(n.ctx, admin); err != nil {
		n.fail("apiserver", err)
	}
	n.stages.Reached("apiserver")
	go n.follow(admin)
	<-containerd
	n.component("kubelet", func() error { return kubernetes.Kubelet(n.ctx) })
	if err := components.EarlyRoles(n.ctx, admin); err != nil {
		n.fail("apiserver", err)
	}
	n.stages.Reached("roles")
	n.component("scheduler", func() error { return kubernetes.Scheduler(n.ctx) })
	n.component("controller-manager", func() error {
		if err := components.APIHealthy(n.ctx, admin); err != nil {
			return err
		}
		return kubernetes.ControllerManager(n.ctx)
	})
	n.component("services", func() error {
		return services.Run(n.ctx, n.client(pki.Services), boot.Device(n.plan), services.On(cluster.Default), n.reached("services", nil))
	})
}

// follow reports what the API tells of: the manifests' objects and the node.
func (n *node) follow(admin *rest.Config) {
	go n.sink.Run("manifests", func() {
		objects, err := manifests.Read(manifestPath)
		if err == nil {
			err = manifests.Deploy(n.ctx, admin, objects)
		}
		if err != nil {
			n.fail("manifests", err)
		}
		n.stages.Reached("manifests")
		n.component("dns", func() error {
			address := netip.MustParseAddr(components.DNSAddress)
			return dns.Run(n.ctx, components.Kubeconfig(pki.DNS), components.Domain, address, n.reached("dns", nil))
		})
	})
	go n.sink.Run("apiserver", func() {
		if err := components.EarlyAccounts(n.ctx, admin); err != nil {
			n.fail("apiserver", err)
		}
		n.reached("accounts", nil)()
	})
	if err := components.NodeReady(n.ctx, admin); err != nil {
		n.fail("kubelet", err)
	}
	n.reached("ready", nil)()
	// The boot leaves much garbage, and first pods start right after it; then the node is mostly idle, and memory
	// counts for more than time.
	for _, after := range []time.Duration{10 * time.Second, 30 * time.Second} {
		time.AfterFunc(after, func() {
			debug.SetGCPercent(40)
			boot.Trim()
		})
	}
}

// whole are the stages that make a node whole.
var whole = []string{"ready", "accounts", "services", "dns"}

// reached returns a function that reports a stage and closes done, once. The last stage that makes the node whole is
// told to whoever started it.
func (n *node) reached(stage string, done chan struct{}) func() {
	return sync.OnceFunc(func() {
		n.stages.Reached(stage)
		if slices.Contains(whole, stage) && n.awaited.Add(-1) == 0 {
			n.tenant.tell("ready")
		}
		if done != nil {
			close(done)
		}
	})
}

// component runs one component; its end is the node's end.
func (n *node) component(name string, run func() error) {
	go n.sink.Run(name, func() {
		err := run()
		if err == nil {
			err = errors.New("ended by itself")
		}
		fmt.Fprintln(n.sink.Component(name), err) // which may be diagnosed
		n.fail(name, err)
	})
}

// client returns the settings of a client of the API.
func (n *node) client(name string) *rest.Config {
	config, err := clientcmd.BuildConfigFromFlags("", components.Kubeconfig(name))
	if err != nil {
		n.fail(name, err)
	}
	config.QPS, config.Burst = 50, 100
	return config
}

// fail reports the first component that failed and ends the node. It does not return.
func (n *node) fail(component string, err error) {
	n.once.Do(func() {
		n.stages.Failed(component, err, n.sink.Tail(component))
		n.tenant.leave()
		n.tenant.tell(fmt.Sprintf("failed: %s: %v", component, err))
		os.Exit(1)
	})
	select {} // another component failed first
}
