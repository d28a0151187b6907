package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"sandkube/node/boot"
)

// tenant is a node in namespaces that native/userns made for it in a sandbox of others, or on a machine. It is the first
// process there, so the kernel ends all that came of it; it tells whoever started it how it went.
type tenant struct {
	kubeconfig *os.File // gets the administrator's kubeconfig
	outcome    *os.File // gets one line, "ready" or "failed: …"
	api        *os.File // listens for the API in the network that the node was started in
	telling    sync.Once
}

func newTenant(options options) *tenant {
	open := func(descriptor int, name string) *os.File {
		if descriptor < 0 {
			return nil
		}
		unix.CloseOnExec(descriptor)
		return os.NewFile(uintptr(descriptor), name)
	}
	return &tenant{
		kubeconfig: open(options.kubeconfig, "kubeconfig"), outcome: open(options.outcome, "outcome"), api: open(options.api, "api"),
	}
}

// settle has SIGTERM and SIGINT end the node cleanly.
func (n *node) settle(options options) error {
	if os.Getpid() != 1 {
		return errors.New("a node in place is the first process of its namespaces: its script starts it")
	}
	n.tenant = newTenant(options)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go func() {
		<-signals
		n.once.Do(func() {
			n.tenant.leave()
			n.tenant.tell("failed: node: it was stopped while it started")
			os.Exit(0)
		})
	}()
	return nil
}

// listeners are those by which the API is reached from where the node was started.
func (t *tenant) listeners() ([]net.Listener, error) {
	if t == nil || t.api == nil {
		return nil, nil
	}
	defer t.api.Close()
	listener, err := net.FileListener(t.api)
	if err != nil {
		return nil, fmt.Errorf("the API's socket: %w", err)
	}
	return []net.Listener{listener}, nil
}

// tell says how the boot went, once.
func (t *tenant) tell(text string) {
	if t == nil || t.outcome == nil {
		return
	}
	t.telling.Do(func() { // a boot may be whole, and fail, at the same moment
		_, _ = fmt.Fprintln(t.outcome, text)
		_ = t.outcome.Close()
	})
}

// handOver writes the kubeconfig.
func (t *tenant) handOver(kubeconfig []byte) error {
	if t == nil || t.kubeconfig == nil {
		return nil
	}
	_, err := t.kubeconfig.Write(kubeconfig)
	return errors.Join(err, t.kubeconfig.Close())
}

// leave ends every other process and removes the cgroups of pods: where they were mounted anew for the node, nobody else
// sees them. All else goes with the namespaces.
func (t *tenant) leave() {
	if t == nil || os.Getpid() != 1 {
		return
	}
	for unix.Kill(-1, unix.SIGKILL) == nil {
		_, _ = unix.Wait4(-1, nil, 0, nil)
	}
	if err := boot.LeaveCgroups(); err != nil {
		fmt.Fprintf(os.Stderr, "node\tcleaning up: %v\n", err) // by no logger: one may be waiting for this
	}
}
