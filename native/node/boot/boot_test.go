package boot

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
	"sandkube/node/fixes"
)

// The node's addresses are on lo of a network of its own: this test's, as root of a user namespace.
func TestNetwork(t *testing.T) {
	const mark = "BOOT_TEST_INSIDE"
	if os.Getenv(mark) == "" {
		command := exec.Command("/proc/self/exe", "-test.run=^TestNetwork$", "-test.v")
		command.Env = append(os.Environ(), mark+"=1")
		command.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		said, err := command.CombinedOutput()
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Skipf("this machine gives no user namespace: %v", err)
		}
		if err != nil || !strings.Contains(string(said), "--- PASS: TestNetwork") {
			t.Fatalf("inside: %v\n%s", err, said)
		}
		return
	}
	if err := Network(Loopback, cluster.Default, cluster.Default.NodeAddress, netip.MustParseAddr("10.88.0.9")); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if found, want := addressesOf(t, lo), []string{"10.88.0.1/32", "10.88.0.9/32", "127.0.0.1/8"}; !slices.Equal(found, want) {
		t.Errorf("lo has %v, not %v", found, want)
	}
	listener, err := net.Listen("tcp4", cluster.Default.NodeAddress.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := Network(Loopback, cluster.Default, netip.Addr{}); err == nil {
		t.Error("an address that is none was added")
	}
	for range 2 { // the second time it is there
		if err := Network(cluster.Default.Bridge, cluster.Default, cluster.Default.NodeAddress, cluster.Default.DNS); err != nil {
			t.Fatal(err)
		}
	}
	bridge, err := netlink.LinkByName(cluster.Default.Bridge)
	if err != nil || bridge.Type() != "bridge" {
		t.Fatalf("%v, %v", bridge, err)
	}
	if found, want := addressesOf(t, bridge), []string{"10.88.0.1/24", "10.96.0.10/32"}; !slices.Equal(found, want) {
		t.Errorf("the bridge has %v, not %v", found, want)
	}
}

func addressesOf(t *testing.T, link netlink.Link) []string {
	t.Helper()
	addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, each := range addresses {
		found = append(found, each.IPNet.String())
	}
	slices.Sort(found)
	return found
}

// Settings binds copies over these two folders and no other.
func TestSettingsAreInBoundFolders(t *testing.T) {
	for name, value := range fixes.Wanted {
		if top, rest, _ := strings.Cut(name, "/"); (top != "kernel" && top != "vm") || rest == "" || value == "" {
			t.Errorf("%s = %q would be written where nothing shows it", name, value)
		}
	}
}

func TestCopyFiles(t *testing.T) {
	source, target := t.TempDir(), filepath.Join(t.TempDir(), "deeper/target")
	for name, mode := range map[string]fs.FileMode{"panic": 0o644, "keys/maxkeys": 0o400, "keys/deep/x": 0o444} {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	// A setting that can only be written: nothing reads through a link to nowhere either.
	if err := os.Symlink("nowhere", filepath.Join(source, "unreadable")); err != nil {
		t.Fatal(err)
	}
	if err := copyFiles(source, target); err != nil {
		t.Fatal(err)
	}
	var found []string
	err := filepath.WalkDir(target, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(target, path)
		data, err := os.ReadFile(path)
		if err != nil || string(data) != name {
			t.Errorf("%s holds %q: %v", name, data, err)
		}
		if info, err := entry.Info(); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		found = append(found, name)
		return nil
	})
	if want := []string{"keys/deep/x", "keys/maxkeys", "panic"}; err != nil || !slices.Equal(found, want) {
		t.Errorf("copied %v: %v", found, err)
	}
	if err := copyFiles(filepath.Join(source, "missing"), target); !os.IsNotExist(err) {
		t.Errorf("a missing folder: %v", err)
	}
}

// The kernel's own settings, which is what is copied in the sandbox.
func TestCopyOfRealSettings(t *testing.T) {
	target := t.TempDir()
	if err := copyFiles("/proc/sys/kernel", target); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("/proc/sys/kernel/ostype")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(target, "ostype"))
	if err != nil || string(got) != string(want) {
		t.Errorf("ostype %q, not %q: %v", got, want, err)
	}
}

// ended starts a program and returns when it has ended, not waited for.
func ended(t *testing.T) *exec.Cmd {
	t.Helper()
	// A name with brackets and spaces must not confuse what reads /proc/PID/stat.
	link := filepath.Join(t.TempDir(), "a) Z 1 (b")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(link, "-test.run=^$")
	command.Stdout = nil
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the child ends", func() bool { return slices.Contains(zombies(), command.Process.Pid) })
	return command
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestZombies(t *testing.T) {
	child := ended(t)
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(zombies(), child.Process.Pid) {
		t.Error("a child that was waited for is listed")
	}
	if slices.Contains(zombies(), os.Getpid()) {
		t.Error("this process lists itself")
	}
}

func TestReapTakesOrphans(t *testing.T) {
	child := ended(t)
	ctx, stop := context.WithCancel(t.Context())
	finished := make(chan struct{})
	go func() {
		Reap(ctx, 5*time.Millisecond)
		close(finished)
	}()
	until(t, "the orphan is reaped", func() bool { return !slices.Contains(zombies(), child.Process.Pid) })
	if err := child.Wait(); err == nil {
		t.Error("its status was there for a second wait")
	}
	stop()
	<-finished
}

// A child that its parent waits for keeps its exit status: nothing is reaped within a period.
func TestReapLeavesChildrenOfOurOwn(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go Reap(ctx, 200*time.Millisecond)
	for range 20 {
		if err := exec.Command(os.Args[0], "-test.run=^$").Run(); err != nil {
			t.Fatalf("the status of a child is lost: %v", err)
		}
	}
}

// A setting that is on is left alone: it may be read-only.
func TestForward(t *testing.T) {
	folder := t.TempDir()
	for name, before := range map[string]string{"on": "1\n", "off": "0\n"} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
			t.Fatal(err)
		}
		old := time.Unix(1, 0)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		if err := forward(path); err != nil {
			t.Error(err)
		}
		data, err := os.ReadFile(path)
		if err != nil || string(data) != "1\n" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		found, err := os.Stat(path)
		if err != nil || found.ModTime().Equal(old) != (name == "on") {
			t.Errorf("%s: written to at %v, %v", name, found.ModTime(), err)
		}
	}
	if err := forward(filepath.Join(folder, "no/folder")); err == nil {
		t.Error("a setting that is not there")
	}
}

func TestRemoveFolders(t *testing.T) {
	root := filepath.Join(t.TempDir(), "kubepods")
	inner := filepath.Join(root, "besteffort", "pod1")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	procs := filepath.Join(inner, "cgroup.procs")
	if err := os.WriteFile(procs, []byte("17\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := inner + ": there are processes in it"
	if err := removeFolders(root); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(procs); err != nil {
		t.Errorf("something was removed: %v", err)
	}
	if err := os.Remove(procs); err != nil { // which a cgroup does itself
		t.Fatal(err)
	}
	if err := removeFolders(root); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
