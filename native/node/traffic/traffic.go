// Package traffic serves what pods send to the node, Services, host ports and names, and has policies be obeyed about it, in a
// process of its own, so that a packet costs at most that one, which is started again.
package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sandkube/node/cluster"
	"sandkube/node/dns"
	"sandkube/node/logs"
	"sandkube/node/policy"
	"sandkube/node/services"
)

// Role is the word that the program is started with.
const Role = "traffic"

// The parts of it: each says its name on a line of standard output when it serves.
const (
	Services = "services"
	DNS      = "dns"
	Policy   = "policy"
)

// Bounds of what traffic may cost: a connection has two sockets and the pipes between them, a flow has one socket.
const (
	descriptors = 1 << 16
	memory      = 256 << 20 // soft: the garbage collector keeps to it as long as it can
)

// Settings are what the process reads from standard input, as JSON: those of each part that it has.
type Settings struct {
	Kubeconfig string // of Services and Policy, which are one client of the API
	Services   *ServicesSettings
	DNS        *DNSSettings
	Policy     PolicySettings
}

// ServicesSettings are those of package services.
type ServicesSettings struct {
	Device string
	Node   services.Node
}

// PolicySettings are those of package policy.
type PolicySettings struct {
	Cluster   cluster.Cluster
	Hindrance string // why policies cannot be enforced
}

// DNSSettings are those of package dns.
type DNSSettings struct {
	Kubeconfig string
	Domain     string
	Address    netip.Addr
	Dual       bool       // there are addresses of IPv6
	Outside    netip.Addr // where names outside are asked for, if there is a way out
}

// Run is the process: it serves until one of its parts ends, and returns why. Each line of the sink has the component of
// its part.
func Run(ctx context.Context, input io.Reader, output io.Writer, sink *logs.Sink) error {
	var settings Settings
	if err := json.NewDecoder(input).Decode(&settings); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if err := bound(); err != nil {
		return err
	}
	debug.SetMemoryLimit(memory)
	config, err := admitted(ctx, settings.Kubeconfig)
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	filter := policy.NewFilter()
	var saying sync.Mutex
	part := func(name string, run func(ready func()) error) {
		ready := sync.OnceFunc(func() {
			saying.Lock()
			defer saying.Unlock()
			fmt.Fprintln(output, name)
		})
		sink.Run(name, func() { ended <- fmt.Errorf("%s: %w", name, run(ready)) })
	}
	if of := settings.Services; of != nil {
		go part(Services, func(ready func()) error {
			return services.Run(ctx, config, of.Device, of.Node, filter, ready)
		})
	}
	if names := settings.DNS; names != nil {
		own := dns.Corefile(names.Domain, names.Outside, names.Dual)
		go part(DNS, func(ready func()) error { return dns.Run(ctx, names.Kubeconfig, own, names.Address, ready) })
	}
	go part(Policy, func(ready func()) error {
		return policy.Run(ctx, config, settings.Policy.Cluster, settings.Policy.Hindrance, filter, ready)
	})
	return <-ended
}

// admitted returns the configuration of a client when the API server lets it in.
func admitted(ctx context.Context, kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 50, 100
	return config, Admits(ctx, config)
}

// Admits returns when the API server lets a client in that is no administrator: it answers before it knows its own rules (RBAC),
// and who asks to watch something then is refused, and asks again after a second. Everybody may ask for the version.
func Admits(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return client.RESTClient().Get().AbsPath("/version").Do(ctx).Error() == nil, nil
	})
}

// bound sets how many files may be open.
func bound() error {
	limit := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = min(limit.Max, descriptors)
	limit.Max = limit.Cur
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("setrlimit", err)
	}
	return nil
}
