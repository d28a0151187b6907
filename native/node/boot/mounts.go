// Package boot makes a bare sandbox into a machine that Kubernetes can start
// on: file systems, kernel settings, addresses, and the reaping of orphans.
package boot

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fresh are the folders that must be on tmpfs: the root is an overlay, and
// the upper layer of an overlay inside an overlay has to be somewhere else.
var fresh = []struct {
	path string
	mode os.FileMode
}{
	{"/run", 0o755},
	{"/tmp", 0o777 | os.ModeSticky},
	{"/var/lib", 0o755},
	{"/var/log", 0o755},
}

// Mounts makes the file systems that everything else needs.
func Mounts() error {
	unix.Umask(0o022)
	for _, each := range fresh {
		if err := os.MkdirAll(each.path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", each.path, "tmpfs", 0, fmt.Sprintf("mode=%o", each.mode.Perm())); err != nil {
			return fmt.Errorf("mounting tmpfs on %s: %w", each.path, err)
		}
		if err := os.Chmod(each.path, each.mode); err != nil {
			return err
		}
	}
	// The kubelet watches the kernel's log for processes killed for want of
	// memory; gVisor has no such log.
	if err := os.Symlink("/dev/null", "/dev/kmsg"); err != nil && !os.IsExist(err) {
		return err
	}
	for _, each := range []string{"/run/sandkube", "/var/lib/containerd", "/var/lib/kubelet", "/var/log/pods"} {
		if err := os.MkdirAll(each, 0o700); err != nil {
			return err
		}
	}
	return shareRoot()
}

// shareRoot makes mounts below / reach containers that ask for mount
// propagation, as on a machine whose init is systemd.
func shareRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making / shared: %w", err)
	}
	return nil
}

// settings are the values that the kubelet asks for; one that matches already
// is never written (pkg/kubelet/cm, setupKernelTunables).
var settings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// Settings puts files with these values in place of kernel settings that
// gVisor lacks: copies of /proc/sys/{kernel,vm} on tmpfs, bound over them.
func Settings() error {
	const base = "/run/sandkube/sys"
	for _, name := range []string{"kernel", "vm"} {
		source, copied := filepath.Join("/proc/sys", name), filepath.Join(base, name)
		if err := copyFiles(source, copied); err != nil {
			return err
		}
	}
	for name, value := range settings {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"kernel", "vm"} {
		target := filepath.Join("/proc/sys", name)
		if err := unix.Mount(filepath.Join(base, name), target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding over %s: %w", target, err)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1\n"), 0o644); err != nil {
		return err
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
