package policy

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"sandkube/node/cluster"
	"sandkube/node/iptables"
)

// fixture is an enforcer of a made-up API, with a filter that notes what it is given.
type fixture struct {
	t      *testing.T
	client *fake.Clientset
	leases string
	filter *Filter

	mu      sync.Mutex
	tables  []iptables.Table
	refuses error
	only    bool // of IPv6
	plain   bool // takes none that translates
	refused int
}

func start(t *testing.T, hindrance string) *fixture { return startOn(t, cluster.Default, hindrance) }

func startOn(t *testing.T, of cluster.Cluster, hindrance string) *fixture {
	t.Helper()
	folder := t.TempDir()
	leaseFolder, filterFile = filepath.Join(folder, "leases"), filepath.Join(folder, "filtered")
	f := &fixture{t: t, client: fake.NewClientset(), leases: leaseFolder, filter: NewFilter()}
	if err := os.Mkdir(f.leases, 0o700); err != nil {
		t.Fatal(err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	e := &enforcer{
		cluster: of, filter: f.filter, hindrance: hindrance, watcher: watcher, replace: f.replace,
		complaints: newComplaints(f.client),
	}
	ready := make(chan struct{})
	e.ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx, f.client) }()
	t.Cleanup(func() {
		cancel()
		<-done
		watcher.Close()
	})
	<-ready
	return f
}

func (f *fixture) replace(table iptables.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuses != nil && (table.IPv6 || !f.only) {
		return f.refuses
	}
	if f.plain && slices.ContainsFunc(table.Chains, func(each iptables.Chain) bool { return each.Name == toServices }) {
		f.refused++
		return errors.New("planted")
	}
	f.tables = append(f.tables, table)
	return nil
}

func (f *fixture) given() []iptables.Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables
}

func (f *fixture) pod(namespace, name, uid, address string) {
	f.t.Helper()
	made := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "1", Labels: map[string]string{"app": name}}}
	if _, err := f.client.CoreV1().Pods(namespace).Create(f.t.Context(), made, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
	text := `{"containerID": "c", "pod": {"namespace": "` + namespace + `", "name": "` + name + `", "uid": "` + uid + `"}}`
	hidden := filepath.Join(f.leases, "."+address)
	if err := errors.Join(os.WriteFile(hidden, []byte(text), 0o600), os.Rename(hidden, filepath.Join(f.leases, address))); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) policy(namespace, spec string) {
	f.t.Helper()
	made := policyOf(f.t, namespace, spec)
	made.UID = "policy"
	if _, err := f.client.NetworkingV1().NetworkPolicies(namespace).Create(f.t.Context(), made, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) eventually(what string, holds func() bool) {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("not within ten seconds: %s", what)
		}
	}
}

func (f *fixture) allows(from, to string) bool {
	return f.filter.Allows(netip.MustParseAddr(from), netip.AddrPortFrom(netip.MustParseAddr(to), 80), v1.ProtocolTCP)
}

// A policy is obeyed for pods of before and of after it, and for none any more when it is gone.
func TestPoliciesComeAndGo(t *testing.T) {
	f := start(t, "")
	f.pod("a", "web", "1", "10.88.0.2")
	if found := f.given(); len(found) != 0 {
		t.Errorf("filtered without a policy: %v", found)
	}
	f.policy("a", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}`)
	f.eventually("isolated", func() bool { return !f.allows("10.88.0.3", "10.88.0.2") })
	f.pod("a", "friend", "1", "10.88.0.3")
	f.eventually("a friend", func() bool { return f.allows("10.88.0.3", "10.88.0.2") })
	f.eventually("one that came later", func() bool { return !f.allows("10.88.0.2", "10.88.0.3") })
	f.pod("a", "former", "another", "10.88.0.4") // the address of a pod that had the name before
	if err := f.client.NetworkingV1().NetworkPolicies("a").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.eventually("free", func() bool { return f.allows("10.88.0.2", "10.88.0.3") })
	f.eventually("no filter", func() bool {
		all := f.given()
		return len(all[len(all)-1].Chains) == 0
	})
	if _, err := os.Stat(filterFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", filterFile, err)
	}
}

func (f *fixture) complaint(about string) {
	f.t.Helper()
	f.eventually("an event: "+about, func() bool {
		found, err := f.client.CoreV1().Events("a").List(f.t.Context(), metav1.ListOptions{})
		return err == nil && len(found.Items) == 1 && found.Items[0].Reason == Reason && strings.Contains(found.Items[0].Message, about)
	})
}

func TestAHindranceIsSaid(t *testing.T) {
	f := start(t, "planted")
	f.policy("a", `{podSelector: {}}`)
	f.complaint("planted")
	if len(f.given()) != 0 {
		t.Error("filtered all the same")
	}
}

func TestARefusalIsSaidAndTriedAgain(t *testing.T) {
	f := start(t, "")
	f.refuses = errors.New("planted")
	f.pod("a", "web", "1", "10.88.0.2")
	f.policy("a", `{podSelector: {}}`)
	f.complaint("planted")
	if !f.allows("10.88.0.9", "10.88.0.2") {
		t.Error("the proxy obeys what the filter does not")
	}
	f.mu.Lock()
	f.refuses = nil
	f.mu.Unlock()
	f.eventually("isolated", func() bool { return !f.allows("10.88.0.9", "10.88.0.2") })
}

// Where the kernel takes the table of one family only, the policy is said not to count, and that table goes with it.
func TestARefusalOfOneFamily(t *testing.T) {
	f := startOn(t, cluster.Default.With(cluster.DefaultSecond), "")
	f.mu.Lock()
	f.refuses, f.only = errors.New("planted"), true
	f.mu.Unlock()
	f.pod("a", "web", "1", "10.88.0.2")
	f.policy("a", `{podSelector: {}}`)
	f.complaint("planted")
	f.eventually("a filter of IPv4", func() bool { return len(f.given()) > 0 && len(f.last().Chains) > 0 })
	if err := f.client.NetworkingV1().NetworkPolicies("a").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.eventually("no filter of IPv4", func() bool { return len(f.last().Chains) == 0 })
	f.mu.Lock()
	f.refuses = nil
	f.mu.Unlock()
	f.eventually("none of IPv6", func() bool { return f.last().IPv6 && len(f.last().Chains) == 0 })
}

func (f *fixture) last() iptables.Table {
	all := f.given()
	return all[len(all)-1]
}

// The kernel translates without a policy, and when one isolates an endpoint leaves that to the proxy.
func TestTranslationsComeAndGo(t *testing.T) {
	f := start(t, "")
	f.filter.Translate(nil)
	f.filter.Translate(web)
	f.eventually("translated", func() bool { return len(f.given()) == 1 && len(f.last().Chains) == 2 })
	f.filter.Translate(slices.Clone(web)) // as it is
	f.pod("a", "web", "1", "10.88.0.2")
	f.policy("a", `{podSelector: {}}`)
	f.eventually("isolated", func() bool { return !f.allows("10.88.0.9", "10.88.0.2") })
	if table := f.last(); len(f.given()) != 2 || len(table.Chains) != 2 || table.Chains[1].Name != policies {
		t.Errorf("the table is %v", table)
	}
	if err := f.client.NetworkingV1().NetworkPolicies("a").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.eventually("translated again", func() bool { return f.last().Chains != nil && f.last().Chains[0].Name == "service0" })
	f.filter.Translate(nil)
	f.eventually("an empty table", func() bool { return len(f.last().Chains) == 0 })
}

// A kernel that cannot translate filters all the same, and is not asked again.
func TestAKernelThatDoesNotTranslate(t *testing.T) {
	f := start(t, "")
	f.mu.Lock()
	f.plain = true
	f.mu.Unlock()
	f.filter.Translate(web)
	f.pod("b", "other", "1", "10.88.0.5")
	f.policy("b", `{podSelector: {}}`)
	f.eventually("isolated", func() bool { return !f.allows("10.88.0.9", "10.88.0.5") })
	for _, each := range f.given() {
		if len(each.Chains) != 2 {
			t.Errorf("the table is %v", each)
		}
	}
	if f.refused != 1 {
		t.Errorf("%d tables were refused", f.refused)
	}
}

func TestALeaseThatIsNone(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{".10.88.0.9": "{", "10.88.0.2": `{"pod": {"name": "x"}, "second": "fd00::2"}`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := leases(folder)
	if err != nil || len(found) != 1 || found[netip.MustParseAddr("10.88.0.2")].Pod.Name != "x" ||
		found[netip.MustParseAddr("10.88.0.2")].Second != netip.MustParseAddr("fd00::2") {
		t.Errorf("found %v, %v", found, err)
	}
	if err := os.WriteFile(filepath.Join(folder, "10.88.0.3"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := leases(folder); err == nil || !strings.Contains(err.Error(), "10.88.0.3") {
		t.Errorf("error %v", err)
	}
}
