// Command sandkube-node is the first process of a sandbox and the whole of Kubernetes in it.
//
// Standard output carries the stages (package stages), standard error every
// component's log (package logs). It ends when a component ends, with status 1,
// or on SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	golog "log"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"sandkube/node/boot"
	"sandkube/node/components"
	"sandkube/node/dns"
	"sandkube/node/images"
	"sandkube/node/logs"
	"sandkube/node/manifests"
	"sandkube/node/pki"
	"sandkube/node/services"
	"sandkube/node/stages"
)

const (
	imageSource  = "/usr/share/sandkube/images"
	imageTarget  = "/var/lib/containerd"
	manifestPath = "/etc/sandkube/manifests"
	reapPeriod   = 10 * time.Second
)

// node is what the parts of the boot share.
type node struct {
	ctx     context.Context
	stages  *stages.Reporter
	sink    *logs.Sink
	once    sync.Once
	running sync.WaitGroup
}

func main() {
	n := &node{
		ctx:    context.Background(),
		stages: stages.New(os.Stdout, time.Now(), time.Now),
		sink:   logs.New(os.Stderr),
	}
	catchLogs(n.sink.Current("node"))
	prepare := []struct {
		stage string
		do    func() error
	}{
		{"mounts", boot.Mounts},
		{"settings", boot.Settings},
		{"network", func() error { return boot.Network(boot.NodeAddress, components.DNSAddress) }},
		{"images", func() error { return images.Mount(imageSource, imageTarget) }},
	}
	for _, step := range prepare {
		if err := step.do(); err != nil {
			n.fail(step.stage, err)
		}
		n.stages.Reached(step.stage)
	}
	go boot.Reap(n.ctx, reapPeriod)
	n.start()
	select {}
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

// start brings up the components, each as soon as what it needs is there.
func (n *node) start() {
	containerd, datastore := make(chan struct{}), make(chan struct{})
	n.component("containerd", func() error {
		return components.Containerd(n.ctx, n.sink.Component("containerd"), n.reached("containerd", containerd))
	})
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
	n.component("controller-manager", func() error { return kubernetes.ControllerManager(n.ctx) })
	n.component("services", func() error {
		address := netip.MustParseAddr(boot.NodeAddress)
		return services.Run(n.ctx, n.client(pki.Services), address, n.reached("services", nil))
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
		n.stages.Reached("accounts")
	})
	if err := components.NodeReady(n.ctx, admin); err != nil {
		n.fail("kubelet", err)
	}
	n.stages.Reached("ready")
	// The boot leaves much garbage; from here on the node is mostly idle and memory counts for more than time.
	debug.SetGCPercent(40)
	debug.FreeOSMemory()
}

// reached returns a function that reports a stage and closes done, once.
func (n *node) reached(stage string, done chan struct{}) func() {
	return sync.OnceFunc(func() {
		n.stages.Reached(stage)
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
		klog.Flush()
		n.stages.Failed(component, err, n.sink.Tail(component))
		os.Exit(1)
	})
	select {} // another component failed first
}
