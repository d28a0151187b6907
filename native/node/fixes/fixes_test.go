package fixes

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sandkube/node/cluster"
)

// init keeps the first thread for main, which tests do not run on: see apart.
func init() { runtime.LockOSThread() }

// complete are the facts of a sandbox that lacks nothing but the pause image, which none has.
func complete() Facts {
	settings := maps.Clone(Wanted)
	for _, name := range asked {
		settings[name] = "1"
	}
	return Facts{
		Release: "6.1.0-10-amd64", Settings: settings, Cgroup: "v2", PercpuUsage: true,
		Device: true, KernelLog: true, Images: true, Tracing: Untried, Userns: Untried,
	}
}

// bare are the facts of one that lacks everything and can do everything about it.
func bare() Facts {
	return Facts{
		Release: "4.4.0", Settings: map[string]string{}, Mount: "refused", Overlay: "invalid argument", Cgroup: "v1",
		CgroupNamespace: "invalid argument", Images: true, InPlace: true, Networks: "refused",
	}
}

func choose(t *testing.T, facts Facts, overrides map[string]string) Plan {
	t.Helper()
	plan, err := Choose(facts, overrides)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func used(plan Plan) string {
	var all []string
	for _, each := range plan {
		if each.On() {
			all = append(all, each.Name+"="+each.Used)
		}
	}
	return strings.Join(all, ", ")
}

func TestChoose(t *testing.T) {
	for _, each := range []struct {
		name  string
		facts func(*Facts)
		want  string
	}{
		{"nothing lacks", func(*Facts) {}, ""},
		{"an old kernel, settings there", func(f *Facts) { f.Release = "4.4.0" }, "kernel-version=patched program"},
		{"an old kernel, settings lack", func(f *Facts) {
			f.Release = "4.4.0"
			delete(f.Settings, "net/ipv4/ping_group_range")
		}, "unprivileged-sysctls=setting"},
		{"no cap_last_cap", func(f *Facts) { delete(f.Settings, "kernel/cap_last_cap") }, "cap-last-cap=patched program"},
		{"no cgroup namespace", func(f *Facts) { f.CgroupNamespace = "refused" }, "cgroup-namespace=wrapper"},
		{"none, but cgroups are v1", func(f *Facts) { f.CgroupNamespace, f.Cgroup = "refused", "v1" }, ""},
		{"another value", func(f *Facts) { f.Settings["kernel/panic"] = "0" }, "kernel-settings=bind mount"},
		{"and no mount", func(f *Facts) {
			f.Settings["kernel/panic"], f.MountSettings, f.Tracing = "0", "refused", ""
		}, "kernel-settings=interceptor"},
		{"and no tracing", func(f *Facts) { f.Settings["kernel/panic"], f.MountSettings = "0", "refused" }, ""},
		{"no file of cgroup v1", func(f *Facts) { f.Cgroup, f.PercpuUsage = "v1", false }, "storage-statistics=setting"},
		{"none, with the interceptor at work", func(f *Facts) {
			f.Cgroup, f.PercpuUsage = "v1", false
			f.Settings["kernel/panic"], f.MountSettings, f.Tracing = "0", "refused", ""
		}, "kernel-settings=interceptor, storage-statistics=interceptor"},
		{"no overlay", func(f *Facts) { f.Overlay = "refused" }, "overlay-root=tmpfs"},
		{"no device", func(f *Facts) { f.Device = false }, "overlay-root=tmpfs"},
		{"no mount, but in a user namespace", func(f *Facts) { f.Mount, f.Userns = "refused", "" }, "mount-right=user namespace"},
		{"no mount anywhere", func(f *Facts) { f.Mount, f.Userns = "refused", "refused" }, ""},
		{"in a user namespace made for it", func(f *Facts) { f.Entered = true }, "mount-right=user namespace"},
		{"in place", func(f *Facts) { f.InPlace = true }, ""},
		{"in place, networks have no settings", func(f *Facts) { f.InPlace, f.Networks = true, "refused" }, "pod-network=bridge"},
		{"not in place, networks have no settings", func(f *Facts) { f.Networks = "refused" }, ""},
		{"no kernel log", func(f *Facts) { f.KernelLog = false }, "kernel-log=link"},
	} {
		t.Run(each.name, func(t *testing.T) {
			facts := complete()
			each.facts(&facts)
			plan := choose(t, facts, map[string]string{PauseImage: "off"}) // needed everywhere
			if got := used(plan); got != each.want {
				t.Errorf("used %q, want %q", got, each.want)
			}
		})
	}
}

// Every fix that is needed is made, in the order of the table, and tells what it costs.
func TestEverythingLacks(t *testing.T) {
	plan := choose(t, bare(), nil)
	var names []string
	for _, each := range plan {
		names = append(names, each.Name)
		if each.Name == KernelVersion || each.Name == CgroupNamespace { // off with the settings; for cgroups v2 only
			continue
		}
		if !each.Needed || !each.On() || each.Cost == "" || each.Cost == free || each.Need == "" || each.Found == "" {
			t.Errorf("%+v", each)
		}
	}
	if !slices.Equal(names, Names()) {
		t.Errorf("order %v, not %v", names, Names())
	}
	for _, each := range choose(t, complete(), map[string]string{PauseImage: "off"}) {
		if each.On() || each.Cost != free {
			t.Errorf("%+v", each)
		}
	}
}

func TestOverrides(t *testing.T) {
	refusing := bare()
	refusing.MountSettings = "refused"
	nowhere := refusing
	nowhere.Tracing = "refused"
	for _, each := range []struct {
		facts      Facts
		name, wish string
		want       string
	}{
		{bare(), KernelSettings, "off", Nothing},
		{bare(), KernelSettings, "auto", BindMount},
		{bare(), KernelSettings, "interceptor", Intercepted},
		{bare(), KernelSettings, "bind-mount", BindMount},
		{complete(), KernelSettings, "auto", Nothing},
		{complete(), KernelSettings, "on", BindMount},
		{complete(), KernelLog, "on", Link},
		{refusing, KernelSettings, "on", Intercepted},
		{nowhere, KernelSettings, "auto", Nothing},
	} {
		plan := choose(t, each.facts, map[string]string{each.name: each.wish})
		if got := plan.Used(each.name); got != each.want {
			t.Errorf("%s=%s: %s, not %s", each.name, each.wish, got, each.want)
		}
	}
	for _, each := range []struct{ name, wish, want string }{
		{KernelSettings, "on", "fix kernel-settings cannot be on here: missing: "},
		{KernelSettings, "bind-mount", `fix kernel-settings cannot be "bind-mount" here; it can be on, off, auto`},
		{OverlayRoot, "link", `fix overlay-root cannot be "link" here; it can be on, off, auto, tmpfs`},
		{"overlay", "on", `there is no fix "overlay"; there are mount-right, pod-network, `},
	} {
		_, err := Choose(nowhere, map[string]string{each.name: each.wish})
		if err == nil || !strings.HasPrefix(err.Error(), each.want) {
			t.Errorf("%s=%s: %v, want %s", each.name, each.wish, err, each.want)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for release, want := range map[string]bool{
		"4.4.0": true, "4.10.17-x": true, "3.10": true, "4.11.0": false, "4.19": false, "6.1.0-10-amd64": false,
		"10.2": false, "": false, "linux": false,
	} {
		if got := olderThan(release, 4, 11); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

func TestValues(t *testing.T) {
	want := Values{Cluster: cluster.Default, Unprivileged: true, Runtime: SealedRunc, LocalStorageAccounts: true, SpareMemory: 50 << 20, Storage: cluster.Storage}
	if got := choose(t, complete(), nil).Values(cluster.Default); got != want {
		t.Errorf("%+v", got)
	}
	facts := bare()
	want = Values{Cluster: cluster.Default, Runtime: SealedRunc, SpareMemory: 50 << 20, Storage: cluster.Storage}
	if got := choose(t, facts, nil).Values(cluster.Default); got != want {
		t.Errorf("%+v", got)
	}
	facts.Cgroup, facts.Settings = "v2", complete().Settings
	plan := choose(t, facts, nil)
	want = Values{Cluster: cluster.Default, Unprivileged: true, IgnoreKernelVersion: true, Runtime: WrappedRunc, LocalStorageAccounts: true, SpareMemory: 50 << 20, Storage: cluster.Storage}
	if got := plan.Values(cluster.Default); got != want || plan.Runc() != PlainRunc {
		t.Errorf("%+v, runc %s", got, plan.Runc())
	}
}

func TestRender(t *testing.T) {
	folder := t.TempDir()
	source, target := filepath.Join(folder, "source"), filepath.Join(folder, "target")
	plan := choose(t, complete(), nil)
	for text, want := range map[string]string{
		"{{.Cluster.Pods}} {{.Cluster.DNS}}":            "10.88.0.0/24 10.96.0.10",
		"a = {{.Unprivileged}}\nb = \"{{.Runtime}}\"\n": "a = true\nb = \"" + SealedRunc + "\"\n",
		"{{if .IgnoreKernelVersion}}x{{end}}y":          "y",
		"{{.Unknown}}":                                  "error",
		"{{.Unprivileged":                               "error",
	} {
		_ = os.Remove(target)
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := plan.Render(cluster.Default, source, target)
		got, readErr := os.ReadFile(target)
		if want == "error" {
			if err == nil || readErr == nil {
				t.Errorf("%q: %v, %q", text, err, got)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if err := plan.Render(cluster.Default, filepath.Join(folder, "missing"), target); !os.IsNotExist(err) {
		t.Errorf("a missing template: %v", err)
	}
}

func TestRules(t *testing.T) {
	facts := bare()
	if plan := choose(t, facts, nil); plan.Intercepts() || plan.Rules("/x") != "" {
		t.Errorf("rules without an interceptor: %q", plan.Rules("/x"))
	}
	facts.MountSettings = "refused"
	plan := choose(t, facts, nil)
	want := "/proc/sys/kernel/ /run/s/kernel/\n/proc/sys/vm/ /run/s/vm/\n*/cpuacct.usage_percpu cpuacct.usage\n"
	if got := plan.Rules("/run/s"); !plan.Intercepts() || got != want {
		t.Errorf("rules %q", got)
	}
}

func TestDiagnose(t *testing.T) {
	off := map[string]string{}
	for _, name := range Names() {
		off[name] = "off"
	}
	without, with := choose(t, bare(), off), choose(t, bare(), nil)
	for i := range without {
		without[i].Needed = true
	}
	for _, each := range symptoms {
		line := "E0101 00:00:00 12 x.go:1] \"Failed\" err=\"" + each.text + ": gone\""
		err := without.Diagnose(line)
		if err == nil || err.Error() != each.sentence+": fix `"+each.fix+"` is off" {
			t.Errorf("%q: %v", line, err)
		}
		if err := with.Diagnose(line); with.Used(each.fix) != Nothing && err != nil {
			t.Errorf("%q, with the fix on: %v", line, err)
		}
	}
	if err := without.Diagnose("everything is fine"); err != nil {
		t.Error(err)
	}
	for _, name := range Names() {
		if name != PodNetwork && // packets get lost, and no program says so
			!slices.ContainsFunc(symptoms, func(each symptom) bool { return each.fix == name }) {
			t.Errorf("nothing shows the want of %s", name)
		}
	}
}

func TestPrint(t *testing.T) {
	facts := bare()
	facts.Memory, facts.Cores = 2<<30, 3
	var out bytes.Buffer
	if err := Print(&out, facts, choose(t, facts, map[string]string{KernelLog: "off"})); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range []string{
		"kernel            4.4.0; cgroups v1; 2048 MB of memory, 3 cores",
		"works             mount below /proc/sys, inotify, ptrace with seccomp",
		"refused           mounts, networks and cgroups (refused), overlay on this root (invalid argument), cgroup namespace (invalid argument)",
		"FIX                   USED             FOR WHAT; WHAT WAS FOUND; WHAT IT COSTS",
		"kernel-log            NOTHING!         the kubelet reads the kernel's log",
		"                                       no /dev/kmsg; pods will not run without a fix",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}

// What is found here is what this machine says by other means, and the trials leave nothing.
func TestProbe(t *testing.T) {
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	facts, err := Probe(folder, false)
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil || facts.Release != strings.TrimSpace(string(release)) {
		t.Errorf("release %q, not %q: %v", facts.Release, release, err)
	}
	for name, value := range facts.Settings {
		data, err := os.ReadFile("/proc/sys/" + name)
		if err != nil || value != strings.TrimSpace(string(data)) {
			t.Errorf("%s is %q, not %q: %v", name, value, data, err)
		}
	}
	if facts.Cores != runtime.NumCPU() || facts.Memory < 1<<26 || facts.Tracing != Untried || facts.Inotify != "" {
		t.Errorf("%+v", facts)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("mounts before\n%s\nand after\n%s%v", before, after, err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Probe(filepath.Join(folder, "missing"), false); err == nil {
		t.Error("a probe without a folder")
	}
}

// Linux has settings for each network; a file that is no setting is one for all.
func TestNetworksOfTheirOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces are root's to make")
	}
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := networks(path); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
		t.Errorf("was %q, is %q", before, after)
	}
	shared := filepath.Join(t.TempDir(), "setting")
	if err := os.WriteFile(shared, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := networks(shared); err == nil {
		t.Error("one setting for all, and nobody saw it")
	}
	if after, _ := os.ReadFile(shared); !bytes.HasPrefix(after, before) {
		t.Errorf("was %q, is %q", before, after)
	}
}

// Without the interceptor's program its trial fails with a reason, and Decide goes on.
func TestDecideTriesTheInterceptorWhenAsked(t *testing.T) {
	Interceptor = filepath.Join(t.TempDir(), "interceptor")
	facts, plan, err := Decide(t.TempDir(), map[string]string{KernelSettings: "off"}, Where{}, true)
	if err != nil || facts.Tracing == "" || facts.Tracing == Untried || plan.Used(KernelSettings) != Nothing {
		t.Errorf("tracing %q, %v, %v", facts.Tracing, plan, err)
	}
	_, _, err = Decide(t.TempDir(), map[string]string{KernelSettings: "interceptor"}, Where{}, false)
	if want := `fix kernel-settings cannot be "interceptor" here`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v", err)
	}
}
