// Package fixes finds out what a sandbox lacks that the node needs, and
// chooses for each need the cheapest means that works there. Nothing is
// inferred from a version: each fact is tried out, or read where the program
// that has the need will read it.
package fixes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are what was found in a sandbox.
type Facts struct {
	Release         string            `json:"release"`          // uname(2)
	Settings        map[string]string `json:"settings"`         // value by name below /proc/sys; no entry: no such file
	Mount           string            `json:"mount"`            // why there can be no mounts, networks and cgroups of a node; "" if they can
	Userns          string            `json:"userns"`           // why not in a user namespace either, or Untried
	Entered         bool              `json:"entered"`          // this is such a user namespace, made for the node
	InPlace         bool              `json:"in_place"`         // the node's network is not the first of this kernel
	Networks        string            `json:"networks"`         // why networks have no settings of their own; "" if they have
	MountSettings   string            `json:"mount_settings"`   // why mount(2) is refused below /proc/sys
	Overlay         string            `json:"overlay"`          // why an overlay has no upper layer on this root
	Device          bool              `json:"device"`           // the device of this root is among the mounts
	Cgroup          string            `json:"cgroup"`           // v1, v2 or none
	PercpuUsage     bool              `json:"percpu_usage"`     // cgroup v1 has cpuacct.usage_percpu
	CgroupNamespace string            `json:"cgroup_namespace"` // why there is none
	KernelLog       bool              `json:"kernel_log"`       // /dev/kmsg can be opened
	Inotify         string            `json:"inotify"`          // why it does not work
	Tracing         string            `json:"tracing"`          // why ptrace(2) with seccomp(2)'s RET_TRACE does not work, or Untried
	Images          bool              `json:"images"`           // the root file system has an image store
	Memory          uint64            `json:"memory"`           // bytes
	Cores           int               `json:"cores"`
}

// Untried stands for a fact that was not needed.
const Untried = "not tried"

// Programs and folders of the node's root file system, which is / unless this program is run from outside of it.
var (
	Interceptor = filepath.Join(root(), "usr/bin/interceptor")
	Userns      = filepath.Join(root(), "usr/bin/userns")
	ImageStore  = filepath.Join(root(), "usr/share/sandkube/images")
)

// root is where this program's file is below usr/bin.
func root() string {
	program, err := os.Executable()
	if err != nil {
		return "/"
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(program)))
}

// asked are the settings below /proc/sys that components of the node read.
var asked = []string{
	"kernel/cap_last_cap",
	"net/ipv4/ip_unprivileged_port_start",
	"net/ipv4/ping_group_range",
}

// Wanted are the values that the kubelet asks for: it stops if one is not there and cannot
// be written (pkg/kubelet/cm, setupKernelTunables).
var Wanted = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// Probe looks at the sandbox that it runs in and leaves it as it was. Folders for trials are made in
// temporary, which must be on the root file system. Tracing is tried only if everything is asked for, user namespaces
// if mounts are refused.
func Probe(temporary string, everything bool) (Facts, error) {
	folder, err := os.MkdirTemp(temporary, "probe-")
	if err != nil {
		return Facts{}, err
	}
	defer os.RemoveAll(folder)
	facts := Facts{
		Release:   release(),
		Settings:  settings(),
		Cgroup:    cgroup(),
		KernelLog: opens("/dev/kmsg"),
		Images:    opens(ImageStore),
		Tracing:   Untried,
		Userns:    Untried,
		Networks:  Untried,
		Cores:     runtime.NumCPU(),
	}
	facts.PercpuUsage = opens("/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu")
	facts.MountSettings, facts.Overlay = mounts(folder)
	facts.Mount = reason(try("here", folder))
	if facts.Mount != "" {
		facts.Userns = reason(try("apart", folder))
	}
	facts.CgroupNamespace = reason(apart(func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }))
	facts.Device = deviceIsMounted(folder)
	facts.Inotify = reason(inotify(folder))
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		facts.Memory = info.Totalram * uint64(info.Unit)
	}
	if everything {
		facts.Tracing = reason(Traces(folder))
	}
	return facts, nil
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

func settings() map[string]string {
	found := map[string]string{}
	read := func(name string) {
		if data, err := os.ReadFile(filepath.Join("/proc/sys", name)); err == nil {
			found[name] = strings.TrimSpace(string(data))
		}
	}
	for _, name := range asked {
		read(name)
	}
	for name := range Wanted {
		read(name)
	}
	return found
}

func opens(path string) bool {
	descriptor, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(descriptor)
	return true
}

// cgroup tells which version is mounted, as containerd and the kubelet tell it.
func cgroup() string {
	var found unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &found); err != nil {
		return "none"
	}
	if found.Type == unix.CGROUP2_SUPER_MAGIC {
		return "v2"
	}
	if opens("/sys/fs/cgroup/memory") {
		return "v1"
	}
	return "none"
}

// apart runs work on a thread that ends with it: what it does to its namespaces concerns nothing else. The
// first thread of the process must be taken (runtime.LockOSThread): that one would not end.
func apart(work func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- work()
	}()
	return <-done
}

// networks tries whether a setting of one network is seen in another. In gVisor all settings are those of the sandbox's
// first network, whoever writes them (issue 1833).
func networks(path string) error {
	return apart(func() error {
		var settings [2]*os.File
		for i := range settings {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("no network namespace: %w", err)
			}
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			settings[i] = file
		}
		before := make([]byte, 64)
		length, err := settings[0].ReadAt(before, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := settings[1].WriteString("16001 60001\n"); err != nil {
			return err
		}
		after := make([]byte, 64)
		if again, _ := settings[0].ReadAt(after, 0); bytes.Equal(after[:again], before[:length]) {
			return nil
		}
		_, err = settings[0].WriteAt(before[:length], 0)
		return errors.Join(errors.New("a setting of one is that of all"), err)
	})
}

// mounts tries what the node would do, in a mount namespace of its own.
func mounts(folder string) (over, overlay string) {
	err := apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		paths := map[string]string{}
		for _, name := range []string{"tmpfs", "lower", "upper", "work", "merged"} {
			paths[name] = filepath.Join(folder, name)
			if err := os.Mkdir(paths[name], 0o755); err != nil {
				return err
			}
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", paths["lower"], paths["upper"], paths["work"])
		overlay = reason(tryOverlay(paths["lower"], paths["merged"], options))
		if err := unix.Mount("tmpfs", paths["tmpfs"], "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		over = reason(unix.Mount(paths["tmpfs"], "/proc/sys/kernel", "", unix.MS_BIND, ""))
		return nil
	})
	if err != nil {
		return err.Error(), err.Error()
	}
	return over, overlay
}

// try asks whether a node can be here, or apart, in a user namespace: native/starter asks the same program.
func try(where, folder string) error {
	said, err := exec.Command(Userns, "--try="+where, folder).CombinedOutput()
	if text := bytes.TrimSpace(said); err != nil && len(text) > 0 {
		return errors.New(string(text))
	}
	return err
}

// withWords adds what a program said to its failure.
func withWords(err error, said []byte) error {
	if text := bytes.TrimSpace(said); err != nil && len(text) > 0 {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// tryOverlay removes a file of the lower layer, which the upper layer must be able to note.
func tryOverlay(lower, merged, options string) error {
	if err := os.WriteFile(filepath.Join(lower, "file"), nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return err
	}
	return os.Remove(filepath.Join(merged, "file"))
}

// deviceIsMounted tells whether a folder's device number is in mountinfo: cAdvisor looks for it there.
func deviceIsMounted(folder string) bool {
	var found unix.Stat_t
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Stat(folder, &found) != nil {
		return false
	}
	device := fmt.Sprintf("%d:%d", unix.Major(found.Dev), unix.Minor(found.Dev))
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == device {
			return true
		}
	}
	return false
}

func inotify(folder string) error {
	descriptor, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(descriptor)
	if _, err := unix.InotifyAddWatch(descriptor, folder, unix.IN_CREATE); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "event"), nil, 0o600); err != nil {
		return err
	}
	_, err = unix.Read(descriptor, make([]byte, 4096))
	return err
}

// Traces tries the interceptor: a program that reads a file which is not there must get another.
func Traces(folder string) error {
	const there = "/proc/sys/sandkube/"
	text := []byte("intercepted\n")
	prepared, rules := filepath.Join(folder, "prepared"), filepath.Join(folder, "rules")
	if err := os.MkdirAll(prepared, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(prepared, "trial"), text, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(rules, []byte(there+" "+prepared+"/\n"), 0o644); err != nil {
		return err
	}
	got, err := exec.Command(Interceptor, "--rules", rules, "--", filepath.Join(root(), "bin/cat"), there+"trial").CombinedOutput()
	if err != nil {
		return withWords(err, got)
	}
	if !bytes.Equal(got, text) {
		return errors.New("paths are not intercepted")
	}
	return nil
}
