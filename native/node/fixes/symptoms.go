package fixes

import (
	"fmt"
	"strings"
)

// symptom is how the want of a fix shows in a component's log.
type symptom struct {
	fix      string
	text     string
	sentence string
}

var symptoms = []symptom{
	{MountRight, "mounting tmpfs on /run: operation not permitted", "the node may not mount"},
	{KernelVersion, "unprivileged_icmp and unprivileged_port require kernel version", "containerd's CRI plug-in refuses this kernel's version"},
	{UnprivilegedSysctls, "open sysctl net.ipv4.ping_group_range", "containerd cannot set net.ipv4.ping_group_range in a pod"},
	{UnprivilegedSysctls, "open sysctl net.ipv4.ip_unprivileged_port_start", "containerd cannot set net.ipv4.ip_unprivileged_port_start in a pod"},
	{PauseImage, "failed to get sandbox image", "containerd has no pause image"},
	{CapLastCap, "open /proc/sys/kernel/cap_last_cap", "runc cannot read cap_last_cap"},
	{CgroupNamespace, "cgroup namespaces aren't enabled in the kernel", "runc cannot make a cgroup namespace"},
	{KernelSettings, "open /proc/sys/kernel/panic", "the kubelet cannot read /proc/sys/kernel/panic and its like"},
	{OverlayRoot, "could not find device in cached partitions map", "the kubelet does not find the device of /var/lib"},
	{OverlayRoot, "failed to mount rootfs component", "containerd cannot mount a container's layers"},
	{KernelLog, "open /dev/kmsg", "the kubelet cannot open /dev/kmsg"},
	{StorageStatistics, "failed to get rootfs info: unable to find data in memory cache", "the kubelet has no statistics of the root file system"},
}

// Diagnose names the fix whose want a line of a component's log shows; nil if it shows none, or if the fix is on or
// not needed here: some of these lines come once in a while where nothing is wanting.
func (p Plan) Diagnose(line string) error {
	for _, each := range symptoms {
		if strings.Contains(line, each.text) && p.lacks(each.fix) {
			return fmt.Errorf("%s: fix `%s` is off", each.sentence, each.fix)
		}
	}
	return nil
}
