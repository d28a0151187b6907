package fixes

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Means of meeting a need, cheapest first.
const (
	Nothing     = "nothing"
	BindMount   = "bind mount"
	Tmpfs       = "tmpfs"
	Link        = "link"
	Setting     = "setting"
	Store       = "image store"
	Wrapper     = "wrapper"
	Patch       = "patched program"
	Intercepted = "interceptor"
	Namespace   = "user namespace"
	Bridge      = "bridge"
)

// Names of the fixes.
const (
	MountRight          = "mount-right"
	PodNetwork          = "pod-network"
	KernelVersion       = "kernel-version"
	PauseImage          = "pause-image"
	UnprivilegedSysctls = "unprivileged-sysctls"
	CapLastCap          = "cap-last-cap"
	CgroupNamespace     = "cgroup-namespace"
	KernelSettings      = "kernel-settings"
	StorageStatistics   = "storage-statistics"
	OverlayRoot         = "overlay-root"
	KernelLog           = "kernel-log"
)

// Choice is one row of the table: a need, and what is done about it.
type Choice struct {
	Name   string `json:"name"`
	Need   string `json:"need"`
	Found  string `json:"found"`
	Needed bool   `json:"needed"`
	Used   string `json:"used"`
	Cost   string `json:"cost"`
}

// On tells whether anything is done.
func (c Choice) On() bool { return c.Used != Nothing }

// Plan has one choice for each fix, in the order of the table.
type Plan []Choice

// Used tells by what means a fix is made.
func (p Plan) Used(name string) string {
	for _, each := range p {
		if each.Name == name {
			return each.Used
		}
	}
	return Nothing
}

// Intercepts tells whether the interceptor is used at all.
func (p Plan) Intercepts() bool {
	return slices.ContainsFunc(p, func(each Choice) bool { return each.Used == Intercepted })
}

// fix is a row before the choice.
type fix struct {
	name, need string
	// look tells what was found, whether something must be done, and by which means it can be, cheapest first.
	look func(facts Facts, plan Plan) (found string, needed bool, means []string)
	cost map[string]string
}

const free = "none"

var table = []fix{
	{
		name: MountRight, need: "the node and its containers are made of mounts, networks and cgroups",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			switch {
			case facts.Entered:
				return "refused where the node is started, but not to root of a user namespace, which this is", true, []string{Namespace}
			case facts.Mount == "":
				return "allowed", false, []string{Namespace}
			case facts.Userns == "":
				return "refused, but not to root of a user namespace: " + facts.Mount, true, []string{Namespace}
			}
			return fmt.Sprintf("refused: %s; in a user namespace: %s", facts.Mount, facts.Userns), true, nil
		},
		cost: map[string]string{Namespace: "no device files can be made"},
	},
	{
		name: PodNetwork, need: "pods reach the node, and each other, through a network that forwards",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			switch {
			case !facts.InPlace:
				return "the node has the first network here", false, []string{Bridge}
			case facts.Networks == "":
				return "each network has settings of its own", false, []string{Bridge}
			}
			return "the node's network is not the first here, and cannot be set: " + facts.Networks, true, []string{Bridge}
		},
		cost: map[string]string{Bridge: "pods are ports of a bridge, and see each other's broadcasts"},
	},
	{
		name: UnprivilegedSysctls, need: "containerd sets net.ipv4.{ip_unprivileged_port_start,ping_group_range} in pods",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			missing := missing(facts, "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range")
			return missingText(missing), len(missing) > 0, []string{Setting}
		},
		cost: map[string]string{Setting: "programs that are not root in a pod need NET_BIND_SERVICE for ports below 1024, NET_RAW for ping"},
	},
	{
		name: KernelVersion, need: "containerd wants Linux 4.11 before it sets these two",
		look: func(facts Facts, plan Plan) (string, bool, []string) {
			refused := olderThan(facts.Release, 4, 11) && plan.Used(UnprivilegedSysctls) == Nothing
			return facts.Release, refused, []string{Patch}
		},
		cost: map[string]string{Patch: "containerd's check is off: a setting that it fails at is seen later, when a pod starts"},
	},
	{
		name: PauseImage, need: "every pod starts with the pause image, in containerd's namespace k8s.io",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			if !facts.Images {
				return "no image store in the root file system", true, nil
			}
			return "no registry serves it", true, []string{Store}
		},
		cost: map[string]string{Store: "milliseconds at boot"},
	},
	{
		name: CapLastCap, need: "runc reads kernel/cap_last_cap",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			missing := missing(facts, "kernel/cap_last_cap")
			return missingText(missing), len(missing) > 0, []string{Patch}
		},
		cost: map[string]string{Patch: "a few prctl(2) calls for each container"},
	},
	{
		name: CgroupNamespace, need: "containerd asks for a cgroup namespace where cgroups are v2",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			found := "there is one; cgroups are " + facts.Cgroup
			if facts.CgroupNamespace != "" {
				found = facts.CgroupNamespace + "; cgroups are " + facts.Cgroup
			}
			return found, facts.CgroupNamespace != "" && facts.Cgroup == "v2", []string{Wrapper}
		},
		cost: map[string]string{Wrapper: "one more exec for each container; containers see the node's cgroup paths"},
	},
	{
		name: KernelSettings, need: "the kubelet reads six settings below /proc/sys, or writes them",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			var wrong []string
			for name, value := range Wanted {
				if facts.Settings[name] != value {
					wrong = append(wrong, name)
				}
			}
			var means []string
			if facts.MountSettings == "" {
				means = append(means, BindMount)
			}
			if facts.Tracing == "" {
				means = append(means, Intercepted)
			}
			sort.Strings(wrong)
			found := missingText(missing(facts, wrong...))
			if len(wrong) > 0 && facts.MountSettings != "" {
				found += "; no mount over them: " + facts.MountSettings
			}
			return found, len(wrong) > 0, means
		},
		cost: map[string]string{
			BindMount:   "milliseconds at boot",
			Intercepted: "two stops for each call with a path, about 2000 a boot; a process that holds the node",
		},
	},
	{
		name: StorageStatistics, need: "the kubelet reads cpuacct.usage_percpu where cgroups are v1",
		look: func(facts Facts, plan Plan) (string, bool, []string) {
			needed := facts.Cgroup == "v1" && !facts.PercpuUsage
			found := "cgroups are " + facts.Cgroup
			if needed {
				found += ", without that file"
			}
			if plan.Used(KernelSettings) == Intercepted {
				return found, needed, []string{Intercepted, Setting} // it is there already, and keeps ephemeral storage
			}
			return found, needed, []string{Setting}
		},
		cost: map[string]string{
			Setting:     "ephemeral storage of pods is neither counted nor limited",
			Intercepted: "one more rule: the file cpuacct.usage is read instead",
		},
	},
	{
		name: OverlayRoot, need: "/var/lib holds the upper layers of containers; the kubelet looks for its device among the mounts",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			switch {
			case facts.Overlay != "":
				return "no upper layer on this root: " + facts.Overlay, true, []string{Tmpfs}
			case !facts.Device:
				return "the root's device is not among them", true, []string{Tmpfs}
			}
			return "the root file system does", false, []string{Tmpfs}
		},
		cost: map[string]string{Tmpfs: "what containers write is in memory"},
	},
	{
		name: KernelLog, need: "the kubelet reads the kernel's log",
		look: func(facts Facts, _ Plan) (string, bool, []string) {
			if facts.KernelLog {
				return "/dev/kmsg is there", false, []string{Link}
			}
			return "no /dev/kmsg", true, []string{Link}
		},
		cost: map[string]string{Link: "processes that were killed for want of memory are not reported"},
	},
}

// Names lists the fixes that can be overridden.
func Names() []string {
	var names []string
	for _, each := range table {
		names = append(names, each.name)
	}
	return names
}

// Choose makes a plan. overrides are by name: auto (the cheapest means that works, if it is needed), on
// (the same, needed or not), off, or a means with dashes for spaces. An unknown name or value is an error
// that names those there are.
func Choose(facts Facts, overrides map[string]string) (Plan, error) {
	for name := range overrides {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no fix %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	var plan Plan
	for _, each := range table {
		found, needed, means := each.look(facts, plan)
		choice := Choice{Name: each.name, Need: each.need, Found: found, Needed: needed, Used: Nothing}
		switch wanted := overrides[each.name]; {
		case wanted == "off", (wanted == "" || wanted == "auto") && (!needed || len(means) == 0):
		case wanted == "" || wanted == "auto" || wanted == "on":
			if len(means) == 0 {
				return nil, fmt.Errorf("fix %s cannot be on here: %s", each.name, found)
			}
			choice.Used = means[0]
		default:
			at := slices.IndexFunc(means, func(one string) bool { return strings.ReplaceAll(one, " ", "-") == wanted })
			if at < 0 {
				values := "on, off, auto"
				for _, one := range means {
					values += ", " + strings.ReplaceAll(one, " ", "-")
				}
				return nil, fmt.Errorf("fix %s cannot be %q here; it can be %s", each.name, wanted, values)
			}
			choice.Used = means[at]
		}
		choice.Cost = each.cost[choice.Used]
		if !choice.On() {
			choice.Cost = free
		}
		plan = append(plan, choice)
	}
	return plan, nil
}

// Where is what a node is told of where it is.
type Where struct {
	Entered bool // in a user namespace that was made for it
	InPlace bool // in namespaces that were made for it, its network among them
}

func (w Where) probe(temporary string, everything bool) (Facts, error) {
	facts, err := Probe(temporary, everything)
	facts.Entered, facts.InPlace = w.Entered, w.InPlace
	if w.InPlace || everything {
		facts.Networks = reason(networks("/proc/sys/net/ipv4/ip_local_port_range"))
	}
	return facts, err
}

// Decide probes and chooses. Whether the interceptor works is tried if something could be met by it alone, if it
// is asked for, or if everything is.
func Decide(temporary string, overrides map[string]string, where Where, everything bool) (Facts, Plan, error) {
	asked := slices.Contains(slices.Collect(maps.Values(overrides)), Intercepted)
	facts, err := where.probe(temporary, everything || asked)
	if err != nil {
		return facts, nil, err
	}
	plan, err := Choose(facts, overrides)
	if err != nil || facts.Tracing != Untried || overrides[KernelSettings] == "off" || !plan.lacks(KernelSettings) {
		return facts, plan, err
	}
	if facts, err = where.probe(temporary, true); err != nil {
		return facts, nil, err
	}
	plan, err = Choose(facts, overrides)
	return facts, plan, err
}

func (p Plan) lacks(name string) bool {
	return slices.ContainsFunc(p, func(each Choice) bool { return each.Name == name && each.Needed && !each.On() })
}

func missing(facts Facts, names ...string) []string {
	var absent []string
	for _, name := range names {
		if _, found := facts.Settings[name]; !found {
			absent = append(absent, name)
		}
	}
	return absent
}

func missingText(names []string) string {
	if len(names) == 0 {
		return "all there"
	}
	return "missing: " + strings.Join(names, " ")
}

// olderThan compares as containerd does (pkg/kernelversion): by the first two numbers.
func olderThan(release string, major, minor int) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	first, _ := strconv.Atoi(parts[0])
	second, _ := strconv.Atoi(parts[1])
	return first < major || first == major && second < minor
}
