package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
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
	"sandkube/node/components"
	"sandkube/node/fixes"
	"sandkube/node/images"
	"sandkube/node/logs"
	"sandkube/node/stages"
	"sandkube/node/units"
)

const (
	imageTarget = "/var/lib/containerd"
	reapPeriod  = 10 * time.Second
	trialFolder = "/var/lib" // on the root file system until boot.Mounts

	interceptedRole = "kubernetes"
	planFile        = "/run/sandkube/fixes.json"
	rulesFile       = "/run/sandkube/interceptor.rules"
	startedVariable = "SANDKUBE_STARTED" // nanoseconds since the epoch
	readyDescriptor = 3                  // of the role kubernetes: a byte comes when containerd serves, the end to end
)

// node is what the parts of the boot share.
type node struct {
	ctx     context.Context
	stages  *stages.Reporter
	sink    *logs.Sink
	plan    fixes.Plan
	given           // what the user wants, and the cluster that it makes
	tenant  *tenant // nil if the node has its sandbox for itself
	keep    bool    // there are data that stay
	once    sync.Once
	awaited atomic.Int32 // stages of whole that were not reached yet
}

func newNode(started time.Time) *node {
	n := &node{
		ctx:    context.Background(),
		stages: stages.New(os.Stdout, started, time.Now),
		sink:   logs.New(os.Stderr),
	}
	n.sink.Watch(func(component, text string) {
		if err := cmp.Or(n.plan.Diagnose(text), refused(component, text)); err != nil {
			n.fail(component, err)
		}
	})
	logs.Catch(n.sink.Current("node"))
	components.NameClients(n.sink.Running)
	components.Within()
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
	n.keep = options.keep
	var err error
	if n.given, err = readGiven(options); err != nil {
		n.fail("node", err)
	}
	if options.inPlace {
		if err := n.settle(options); err != nil {
			n.fail("node", err)
		}
	}
	if err := n.probe(options); err != nil {
		fmt.Fprintln(n.sink.Component("node"), err) // which may be diagnosed
		n.fail("node", fmt.Errorf("probe: %w", err))
	}
	if err := errors.Join(n.checkMembers(), n.checkEgress(), n.checkFamilies()); err != nil {
		n.fail("node", err)
	}
	n.stages.Reached("probe")
	go boot.Reap(n.ctx, reapPeriod)
	table := append(n.preparation(), n.runtime()...)
	if n.plan.Intercepts() {
		delegated, end := n.delegation(started, options.everyCall)
		table = append(table, delegated...)
		n.endInOrder(signalled(), end)
	} else {
		c := newControl(n)
		table = append(table, c.units()...)
		n.endInOrder(signalled(), c.end)
	}
	n.start(table)
	select {}
}

// probe finds out what the sandbox lacks, and ends what main holds for it.
func (n *node) probe(options options) (err error) {
	defer runtime.UnlockOSThread() // see main
	_, n.plan, err = fixes.Decide(trialFolder, options.overrides, options.where(), false)
	if err == nil && n.plan.Used(fixes.MountRight) != fixes.Nothing && !options.entered {
		err = fmt.Errorf("fix %s is for a node in place: its script makes the user namespace", fixes.MountRight)
	}
	return err
}

// configure fills in what depends on the plan.
func (n *node) configure() error {
	plan, err := json.Marshal(n.plan)
	if err != nil {
		return err
	}
	return errors.Join(
		boot.Configure(n.plan, n.cluster, n.keep),
		os.WriteFile(planFile, plan, 0o600),
		n.save(),
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

// delegation runs Kubernetes under the interceptor. containerd stays outside: what it starts must see
// its own files, and a process that ever was traced cannot do without its tracer.
// The other process is told that containerd serves by a byte, and to end in order by the end of the pipe.
func (n *node) delegation(started time.Time, everyCall bool) (table []units.Unit, end func()) {
	served, serves, err := os.Pipe()
	if err != nil {
		n.fail("node", err)
	}
	told := func(context.Context) error {
		_, err := serves.Write([]byte{1})
		return err
	}
	begun, ended := make(chan struct{}), make(chan struct{})
	intercept := func(ctx context.Context, _ func()) error {
		close(begun)
		defer close(ended)
		program, err := os.Executable()
		if err != nil {
			return err
		}
		words := []string{"--rules", rulesFile}
		if everyCall {
			words = append(words, "--all")
		}
		words = append(words, "--", program, interceptedRole)
		if n.keep {
			words = append(words, "--keep")
		}
		command := exec.CommandContext(ctx, fixes.Interceptor, words...)
		command.Env = append(os.Environ(), startedVariable+"="+strconv.FormatInt(started.UnixNano(), 10))
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		command.ExtraFiles = []*os.File{served}
		if n.tenant != nil { // the other process knows when there is something to hand over
			command.Args = append(command.Args, "--in-place")
			for name, each := range map[string]*os.File{"kubeconfig": n.tenant.kubeconfig, "outcome": n.tenant.outcome, "api": n.tenant.api} {
				if each != nil {
					command.Args = append(command.Args, fmt.Sprintf("--%s-fd=%d", name, readyDescriptor+len(command.ExtraFiles)))
					command.ExtraFiles = append(command.ExtraFiles, each)
				}
			}
		}
		return components.Command(command)
	}
	end = func() {
		_ = serves.Close()
		select {
		case <-begun:
			<-ended
		default: // and it never will
		}
	}
	return []units.Unit{
		{Name: "interceptor", Needs: prepared, Silent: true, Run: intercept},
		{Name: "told", Owner: "node", Needs: []string{"containerd"}, Silent: true, Do: told},
	}, end
}

// runIntercepted is the role kubernetes. It does not return.
func runIntercepted(options options) {
	started := time.Now()
	if nanoseconds, err := strconv.ParseInt(os.Getenv(startedVariable), 10, 64); err == nil {
		started = time.Unix(0, nanoseconds)
	}
	n := newNode(started)
	n.keep = options.keep
	if options.inPlace {
		n.tenant = newTenant(options)
	}
	data, err := os.ReadFile(planFile)
	if err == nil {
		err = json.Unmarshal(data, &n.plan)
	}
	if err == nil {
		n.given, err = savedGiven()
	}
	if err != nil {
		n.fail("node", err)
	}
	containerd := os.NewFile(readyDescriptor, "containerd")
	serves := make(chan struct{})
	served := func(ctx context.Context) error {
		select {
		case <-serves:
		case <-ctx.Done():
		}
		return nil
	}
	asked := func() {
		one := make([]byte, 1)
		if length, _ := containerd.Read(one); length == 1 {
			close(serves)
			_, _ = containerd.Read(one)
		}
	}
	c := newControl(n)
	n.endInOrder(asked, c.end)
	n.start(append([]units.Unit{
		{Name: "network", Owner: "node", Silent: true, Do: nothing},
		{Name: "images", Owner: "node", Silent: true, Do: nothing},
		{Name: "containerd", Silent: true, Do: served},
	}, c.units()...))
	select {}
}

func nothing(context.Context) error { return nil }

// start starts a table of units.
func (n *node) start(table []units.Unit) {
	n.awaited.Store(int32(len(n.whole())))
	err := units.Start(n.ctx, table, units.Observer{
		Reached: n.reached,
		Within:  n.sink.Run,
		Failed: func(owner string, err error) {
			fmt.Fprintln(n.sink.Component(owner), err) // which may be diagnosed
			n.fail(owner, err)
		},
		Again: func(owner string, err error) {
			fmt.Fprintf(n.sink.Component(owner), "%s ended (%v) and is started again\n", owner, err)
		},
	})
	if err != nil {
		n.fail("node", err)
	}
}

// reached reports a stage. The last of those that make the node whole is told to whoever started it.
func (n *node) reached(stage string) {
	n.stages.Reached(stage)
	if slices.Contains(n.whole(), stage) && n.awaited.Add(-1) == 0 {
		n.tenant.tell("ready")
	}
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
func (n *node) fail(component string, err error) { n.failed(component, err, n.sink.Tail(component)) }

// failed is fail with what the component logged last.
func (n *node) failed(component string, err error, log []string) {
	n.once.Do(func() {
		n.stages.Failed(component, err, log)
		n.tenant.leave()
		n.tenant.tell(fmt.Sprintf("failed: %s: %v", component, err))
		os.Exit(1)
	})
	select {} // another component failed first
}
