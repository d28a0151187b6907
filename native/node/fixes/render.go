package fixes

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"

	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
)

// Values are what the templates of configuration files may ask for.
type Values struct {
	Cluster              cluster.Cluster
	Unprivileged         bool   // containerd sets the two settings of unprivileged processes in pods
	IgnoreKernelVersion  bool   // containerd sets them on any kernel
	Runtime              string // the runc that containerd starts
	LocalStorageAccounts bool   // the kubelet counts and limits ephemeral storage
	SpareMemory          uint64 // bytes that are to be left of the machine's memory
	Storage              string // the folder of claims
}

// The node's three ways to run runc.
const (
	PlainRunc   = "/usr/libexec/sandkube/runc"
	PatchedRunc = "/usr/bin/runc"
	WrappedRunc = "/usr/bin/runc-wrapper"
)

// SealedRunc leads to a sealed copy of the one that is used.
const SealedRunc = "/run/sandkube/runc"

// Runc is the program that runs containers, behind the wrapper or not; SealedRunc is its copy.
func (p Plan) Runc() string {
	if p.Used(CapLastCap) == Patch {
		return PatchedRunc
	}
	return PlainRunc
}

// TotalMemory is the machine's, in bytes, as its kernel tells it.
func TotalMemory() uint64 {
	var machine unix.Sysinfo_t
	_ = unix.Sysinfo(&machine) // which fails for a bad pointer only
	return machine.Totalram * uint64(machine.Unit)
}

// Values are those of a plan, for a cluster.
func (p Plan) Values(of cluster.Cluster) Values {
	values := Values{
		Cluster:              of,
		Unprivileged:         p.Used(UnprivilegedSysctls) == Nothing,
		IgnoreKernelVersion:  p.Used(KernelVersion) == Patch,
		Runtime:              SealedRunc,
		LocalStorageAccounts: p.Used(StorageStatistics) != Setting,
		SpareMemory:          of.Spare(TotalMemory()),
		Storage:              cluster.Storage,
	}
	if p.Used(CgroupNamespace) == Wrapper {
		values.Runtime = WrappedRunc
	}
	return values
}

// Render fills in a template.
func (p Plan) Render(of cluster.Cluster, source, target string) error {
	made, err := template.New("").Option("missingkey=error").ParseFiles(source)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := made.Templates()[0].Execute(&text, p.Values(of)); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return os.WriteFile(target, []byte(text.String()), 0o600)
}

// Rules are the interceptor's, for settings prepared in the folder settings.
func (p Plan) Rules(settings string) string {
	var rules strings.Builder
	if p.Used(KernelSettings) == Intercepted {
		for _, name := range []string{"kernel", "vm"} {
			fmt.Fprintf(&rules, "/proc/sys/%s/ %s/%s/\n", name, settings, name)
		}
	}
	if p.Used(StorageStatistics) == Intercepted {
		fmt.Fprintln(&rules, "*/cpuacct.usage_percpu cpuacct.usage")
	}
	return rules.String()
}

// Print writes what was found and what is done about it, for people.
func Print(out io.Writer, facts Facts, plan Plan) error {
	works, refused := trials(facts)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(table, strings.Join(cells, "\t")) }
	row("kernel", fmt.Sprintf("%s; cgroups %s; %d MB of memory, %d cores", facts.Release, facts.Cgroup, facts.Memory>>20, facts.Cores))
	row("works", works)
	row("refused", refused)
	row("no /proc/sys/...", strings.Join(missing(facts, sortedSettings()...), " "))
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	row("FIX", "USED", "FOR WHAT; WHAT WAS FOUND; WHAT IT COSTS")
	for _, each := range plan {
		used, second := each.Used, each.Found
		switch {
		case each.On():
			second += "; cost: " + each.Cost
		case each.Needed:
			used = "NOTHING!"
			second += "; pods will not run without a fix"
		}
		row(each.Name, used, each.Need)
		row("", "", second)
	}
	return table.Flush()
}

func trials(facts Facts) (works, refused string) {
	for _, each := range []struct{ name, why string }{
		{inUserns("mounts, networks and cgroups", facts), facts.Mount},
		{"mount below /proc/sys", facts.MountSettings},
		{"overlay on this root", facts.Overlay},
		{"cgroup namespace", facts.CgroupNamespace},
		{"inotify", facts.Inotify},
		{"ptrace with seccomp", facts.Tracing},
	} {
		list, text := &works, each.name
		if each.why != "" {
			list, text = &refused, fmt.Sprintf("%s (%s)", each.name, each.why)
		}
		if *list != "" {
			*list += ", "
		}
		*list += text
	}
	return works, refused
}

func inUserns(name string, facts Facts) string {
	if facts.Entered {
		return name + " (in a user namespace only)"
	}
	return name
}

func sortedSettings() []string {
	names := slices.Concat(asked, slices.Collect(maps.Keys(Wanted)))
	slices.Sort(names)
	return names
}
