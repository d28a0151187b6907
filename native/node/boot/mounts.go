// Package boot makes a bare sandbox into a machine that Kubernetes can start
// on: file systems, kernel settings, addresses, and the reaping of orphans.
package boot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandkube/node/cluster"
	"sandkube/node/fixes"
)

// folder is one with its mode.
type folder struct {
	path string
	mode os.FileMode
}

// fresh are the folders that start empty at each boot.
var fresh = []folder{
	{"/run", 0o755},
	{"/tmp", 0o777 | os.ModeSticky},
	{"/var/log", 0o755},
}

// state is the folder that keeps containers; it must be able to hold the upper layers of overlays.
const state = "/var/lib"

// written are the folders that pods write into: layers of containers, emptyDirs, and claims. Where state is memory, they are file
// systems of their own, each of a quarter of it, which several nodes share: a pod that fills its disk leaves the datastore, containerd and the kubelet
// theirs, so that it can be ended.
var written = []string{
	state + "/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots",
	state + "/kubelet/pods",
	cluster.Storage,
}

// needed are the folders that have to be there.
var needed = []string{"/run/sandkube", "/var/lib/containerd", "/var/lib/kubelet", "/var/log/pods", cluster.Storage, cluster.Leases}

// Mounts makes the file systems that everything else needs. If keep is set, what is to outlive the node lies in Kept.
func Mounts(plan fixes.Plan, of cluster.Cluster, keep bool) error {
	unix.Umask(0o022)
	for _, each := range fresh {
		if err := tmpfs(each.path, each.mode); err != nil {
			return err
		}
	}
	if plan.Used(fixes.OverlayRoot) == fixes.Tmpfs {
		if err := memory(of); err != nil {
			return err
		}
	} else if err := empty(state); err != nil {
		return err
	}
	if plan.Used(fixes.KernelLog) == fixes.Link {
		if err := os.Symlink("/dev/null", "/dev/kmsg"); err != nil && !os.IsExist(err) {
			return err
		}
	}
	for _, each := range needed {
		if err := os.MkdirAll(each, 0o700); err != nil {
			return err
		}
	}
	if keep {
		if err := keepFolders(of, "/"); err != nil {
			return err
		}
	}
	return shareRoot()
}

// memory makes state, and what is in it, file systems in memory.
func memory(of cluster.Cluster) error {
	if err := tmpfs(state, 0o755); err != nil {
		return err
	}
	for _, each := range written {
		if err := tmpfs(each, 0o700, limit(of)); err != nil {
			return err
		}
	}
	return nil
}

// empty removes what is in a folder: an earlier node in place may have left its containers there.
func empty(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var all []error
	for _, entry := range entries {
		all = append(all, os.RemoveAll(filepath.Join(folder, entry.Name())))
	}
	return errors.Join(all...)
}

func tmpfs(path string, mode os.FileMode, more ...string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	options := strings.Join(append([]string{fmt.Sprintf("mode=%o", mode.Perm())}, more...), ",")
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mounting tmpfs on %s: %w", path, err)
	}
	return os.Chmod(path, mode)
}

// shareRoot makes mounts below / reach containers that ask for mount
// propagation, as on a machine whose init is systemd.
func shareRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making / shared: %w", err)
	}
	return nil
}

// PreparedSettings has the node's own files of /proc/sys/{kernel,vm}.
const PreparedSettings = "/run/sandkube/sys"

// Settings prepares files with the values that the kubelet wants beside copies of all others below
// /proc/sys/{kernel,vm}, and binds them over those if the plan says so.
func Settings(plan fixes.Plan, of cluster.Cluster) error {
	if plan.Used(fixes.KernelSettings) != fixes.Nothing {
		if err := prepareSettings(); err != nil {
			return err
		}
	}
	if plan.Used(fixes.KernelSettings) == fixes.BindMount {
		for _, name := range []string{"kernel", "vm"} {
			target := filepath.Join("/proc/sys", name)
			if err := unix.Mount(filepath.Join(PreparedSettings, name), target, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("binding over %s: %w", target, err)
			}
		}
	}
	if Device(plan, of) == of.Bridge {
		return nil // nothing is to be forwarded, and these settings are those of another network
	}
	tune("/proc/sys")
	if of.Dual() {
		if err := forward(Forwarding6); err != nil {
			return err
		}
	}
	return forward("/proc/sys/net/ipv4/ip_forward")
}

// Forwarding6 is the setting by which the network stack forwards IPv6. gVisor has it by a patch.
const Forwarding6 = "/proc/sys/net/ipv6/conf/all/forwarding"

// tuned are settings that gVisor has other defaults of than Linux. A sandbox may lack them or not let them be written.
var tuned = map[string]string{
	// gVisor's 16000 to 65535 has node ports in it: one that a connection has taken could not be listened on.
	"net/ipv4/ip_local_port_range": "32768 60999",
	// With RACK, bursts of small packets over a very fast link wait for time-outs: 300 small files by `kubectl cp` took
	// up to two minutes, without it one second (google/gvisor #6113).
	"net/ipv4/tcp_recovery": "0",
}

func tune(folder string) {
	for name, value := range tuned {
		path := filepath.Join(folder, name)
		if unix.Access(path, unix.F_OK) != nil {
			continue // os.WriteFile would make it where the folder is not proc's
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			klog.InfoS("Left as it is", "setting", name, "why", err)
		}
	}
}

// forward turns a setting on. Where it is on it may be read-only.
func forward(path string) error {
	if value, err := os.ReadFile(path); err == nil && string(bytes.TrimSpace(value)) == "1" {
		return nil
	}
	return os.WriteFile(path, []byte("1\n"), 0o644)
}

func prepareSettings() error {
	for _, name := range []string{"kernel", "vm"} {
		source, copied := filepath.Join("/proc/sys", name), filepath.Join(PreparedSettings, name)
		if err := copyFiles(source, copied); err != nil {
			return err
		}
	}
	for name, value := range fixes.Wanted {
		path := filepath.Join(PreparedSettings, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyFiles copies the readable files of a folder of /proc/sys, folders in it too.
func copyFiles(source, target string) error {
	entries, err := os.ReadDir(source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	for _, entry := range entries {
		from, to := filepath.Join(source, entry.Name()), filepath.Join(target, entry.Name())
		if entry.IsDir() {
			if err := copyFiles(from, to); err != nil {
				return err
			}
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			continue // some settings can only be written
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
