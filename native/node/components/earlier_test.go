package components

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

func TestClaim(t *testing.T) {
	for _, each := range []struct{ theirs, ours, want string }{
		{"", "v1.34.2", ""},
		{"v1.34.2", "v1.34.2", ""},
		{"v1.34.5", "v1.34.2", ""},
		{"v1.33.9", "v1.34.2", ""},
		{"v1.35.0", "v1.34.2", "its data were written by Kubernetes v1.35.0, which v1.34.2 cannot go on from: start it with that one or a newer one"},
		{"v2.0.0", "v1.34.2", "its data were written by Kubernetes v2.0.0, which v1.34.2 cannot go on from: start it with that one or a newer one"},
		{"v1.32.0", "v1.34.2", "its data were written by Kubernetes v1.32.0, and an upgrade is one minor version at a time: start it with v1.33 before v1.34.2"},
	} {
		folder := t.TempDir()
		path := filepath.Join(folder, "version")
		if each.theirs != "" {
			if err := os.WriteFile(path, []byte(each.theirs+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		said, noted := "", each.ours
		if err := Claim(folder, each.ours); err != nil {
			said, noted = err.Error(), each.theirs
		}
		if said != each.want {
			t.Errorf("%s after %s: %q, not %q", each.ours, each.theirs, said, each.want)
		}
		if data, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(data)) != noted {
			t.Errorf("%s after %s: it notes %q, %v", each.ours, each.theirs, data, err)
		}
	}
}

func TestClaimOfAnythingElse(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "version"), []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Claim(folder, "v1.34.2"); err == nil {
		t.Error("data of an unknown version were taken")
	}
}

func nodeAt(when time.Time, status v1.ConditionStatus) watch.Event {
	return watch.Event{Type: watch.Modified, Object: &v1.Node{Status: v1.NodeStatus{Conditions: []v1.NodeCondition{
		{Type: v1.NodeReady, Status: status, LastHeartbeatTime: metav1.NewTime(when)},
	}}}}
}

// A node that was killed is Ready in its datastore. The host's clock may have been set back since.
func TestReadyIsOfThisBoot(t *testing.T) {
	before := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	earlier := Earlier{true, metav1.NewTime(before)}
	for _, each := range []struct {
		earlier Earlier
		event   watch.Event
		want    bool
	}{
		{Earlier{}, nodeAt(before, v1.ConditionTrue), true},
		{Earlier{}, nodeAt(before, v1.ConditionFalse), false},
		{earlier, nodeAt(before.Local(), v1.ConditionTrue), false},
		{earlier, nodeAt(before.Add(time.Minute), v1.ConditionTrue), true},
		{earlier, nodeAt(before.Add(-time.Minute), v1.ConditionTrue), true},
		{earlier, nodeAt(before.Add(time.Minute), v1.ConditionFalse), false},
	} {
		if ready, err := each.earlier.isReady(each.event); ready != each.want || err != nil {
			t.Errorf("%v after %v: %v, %v", each.event.Object, each.earlier, ready, err)
		}
	}
}

func TestDurable(t *testing.T) {
	before := parameters
	defer func() { parameters = before }()
	Durable()
	if !strings.Contains(parameters, "_synchronous=FULL&") || strings.Contains(parameters, "NORMAL") {
		t.Error(parameters)
	}
}

func TestPodsOfAnEarlierBootAreNotReady(t *testing.T) {
	status := v1.PodStatus{Conditions: []v1.PodCondition{
		{Type: v1.PodInitialized, Status: v1.ConditionTrue}, {Type: v1.PodReady, Status: v1.ConditionTrue},
	}}
	if !unready(&status) || unready(&status) {
		t.Error("the first time it is a change, then it is none")
	}
	if status.Conditions[0].Status != v1.ConditionTrue || status.Conditions[1].Status != v1.ConditionFalse {
		t.Errorf("%v", status.Conditions)
	}
}
