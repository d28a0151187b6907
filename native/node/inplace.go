package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	"sandkube/node/services"
)

// claimed is a name that a node in place has as long as it lives, one in a network.
const claimed = "@sandkube-node"

// tenant is a node that is not its sandbox's first process: it cleans up after itself, and tells whoever
// started it how it went.
type tenant struct {
	kubeconfig *os.File     // gets the administrator's kubeconfig
	outcome    *os.File     // gets one line, "ready" or "failed: …"
	claim      net.Listener // held as long as this process lives
	cluster    cluster.Cluster
	claimed    bool // if not, nothing here is this node's to take away
}

// settle makes this process the one that orphans below it are given to, and has SIGTERM and SIGINT end it cleanly.
func (n *node) settle(options options) error {
	if options.withParent {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
			return err
		}
	}
	kubeconfig, outcome := options.kubeconfig, options.outcome
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	n.tenant = &tenant{cluster: n.cluster}
	if kubeconfig >= 0 {
		n.tenant.kubeconfig = os.NewFile(uintptr(kubeconfig), "kubeconfig")
		unix.CloseOnExec(kubeconfig)
	}
	if outcome >= 0 {
		n.tenant.outcome = os.NewFile(uintptr(outcome), "outcome")
		unix.CloseOnExec(outcome)
	}
	if err := n.tenant.settle(options); err != nil {
		return err
	}
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

// settle makes sure that this is the only node in its network, whose addresses it takes away at its end, and that nobody
// has the API's port of the loopback: the API server would listen beside it, on all addresses, and get no request.
func (t *tenant) settle(options options) error {
	claim, err := net.Listen("unix", claimed)
	if err != nil {
		return errors.New("another node runs in this sandbox already")
	}
	t.claim, t.claimed = claim, true
	if options.api >= 0 {
		return nil // a network of its own
	}
	port, err := net.Listen("tcp4", strings.TrimPrefix(t.cluster.Server(), "https://"))
	if err != nil {
		return err
	}
	return port.Close()
}

// forwardAPI serves the API's clients on the network that the node was started in, by a socket that listens there.
func (n *node) forwardAPI(descriptor int) error {
	unix.CloseOnExec(descriptor)
	file := os.NewFile(uintptr(descriptor), "api")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("the API's socket: %w", err)
	}
	_ = file.Close()
	server := netip.MustParseAddrPort(strings.TrimPrefix(n.cluster.Server(), "https://"))
	go services.Forward(n.ctx, listener.(*net.TCPListener), server)
	return nil
}

// tell says how the boot went, once.
func (t *tenant) tell(text string) {
	if t == nil || t.outcome == nil {
		return
	}
	_, _ = fmt.Fprintln(t.outcome, text)
	_ = t.outcome.Close()
	t.outcome = nil
}

// handOver writes the kubeconfig.
func (t *tenant) handOver(kubeconfig []byte) error {
	if t == nil || t.kubeconfig == nil {
		return nil
	}
	_, err := t.kubeconfig.Write(kubeconfig)
	return errors.Join(err, t.kubeconfig.Close())
}

// leave ends every process that came from this one, removes its cgroups and takes the addresses of the node off lo.
// Mounts go with the mount namespace.
func (t *tenant) leave() {
	if t == nil || !t.claimed {
		return
	}
	killDescendants()
	if err := errors.Join(boot.LeaveNetwork(t.cluster), boot.LeaveCgroups()); err != nil {
		klog.ErrorS(err, "Cleaning up")
	}
}

// killDescendants returns when there is none. Whatever they start meanwhile is killed as well: orphans come to
// this process.
func killDescendants() {
	for {
		pids := below(os.Getpid())
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		time.Sleep(5 * time.Millisecond) // nothing tells of the end of a process that is not a child
	}
}

// below lists the processes below some, zombies of others left out.
func below(of ...int) []int {
	children := map[int][]int{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// proc(5): "PID (NAME) STATE PPID …"; NAME may hold anything, so look behind its last bracket.
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		if fields[0] != "Z" || slices.Contains(of, parent) {
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	for next := slices.Clone(of); len(next) > 0; next = next[1:] {
		all = append(all, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return all
}
