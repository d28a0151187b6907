package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandkube/node/logs"
	"sandkube/node/stages"
)

const role = "SANDKUBE_TEST_ROLE"

// TestMain is also what the tests start: a process that waits, alone or above another one.
func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "wait":
		time.Sleep(time.Minute)
	case "above":
		_ = child("wait").Start()
		time.Sleep(time.Minute)
	case "fail":
		n := &node{stages: stages.New(os.Stdout, time.Now(), time.Now), sink: logs.New(io.Discard)}
		n.tenant = &tenant{outcome: os.Stderr}
		n.fail("kubelet", errors.New("planted"))
	default:
		os.Exit(m.Run())
	}
}

func child(as string) *exec.Cmd {
	command := exec.Command("/proc/self/exe")
	command.Env = []string{role + "=" + as}
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return command
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestDescendantsEnd(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	other := child("wait")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	above := child("above")
	if err := above.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a grandchild", func() bool { return len(below(above.Process.Pid)) == 1 })
	all := below(os.Getpid())
	if grandchild := below(above.Process.Pid)[0]; len(all) != 3 || !slices.Contains(all, grandchild) {
		t.Errorf("below this process are %v, wanted three, %d among them", all, grandchild)
	}
	killDescendants()
	if left := below(os.Getpid()); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestRooted(t *testing.T) {
	if found, err := rooted(t.TempDir()); err != nil || len(found) > 0 {
		t.Errorf("processes %v have a new folder as their root, %v", found, err)
	}
	if _, err := rooted("/no/folder"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	// This process has /, but is in our mount namespace.
	if found, err := rooted("/"); err != nil || slices.Contains(found, os.Getpid()) {
		t.Errorf("this process is one of %v, %v", found, err)
	}
}

func TestOneNodeANetwork(t *testing.T) {
	var first, second tenant
	options := options{api: 3} // a network of its own: the port is not asked for
	if err := first.settle(options); err != nil {
		t.Fatal(err)
	}
	if err := second.settle(options); err == nil || err.Error() != "another node runs in this sandbox already" {
		t.Errorf("the second node: %v", err)
	}
	if second.claimed {
		t.Error("the second node would take away what is the first one's")
	}
	_ = first.claim.Close()
	if err := second.settle(options); err != nil {
		t.Errorf("after the first one's end: %v", err)
	}
	_ = second.claim.Close()
}

func said(t *testing.T, tell func(*os.File)) string {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tell(writer)
	_ = writer.Close()
	text, _ := io.ReadAll(reader)
	return string(text)
}

func TestTheOutcomeIsToldOnce(t *testing.T) {
	n := &node{stages: stages.New(io.Discard, time.Now(), time.Now)}
	n.awaited.Store(int32(len(whole)))
	got := said(t, func(outcome *os.File) {
		n.tenant = &tenant{outcome: outcome}
		for _, stage := range append([]string{"mounts"}, whole[1:]...) {
			n.reached(stage)
		}
		if n.tenant.outcome == nil {
			t.Error("it was told before the node was whole")
		}
		n.reached(whole[0])
		n.tenant.tell("again")
	})
	if got != "ready\n" {
		t.Errorf("told %q", got)
	}
}

func TestTheKubeconfigIsHandedOver(t *testing.T) {
	got := said(t, func(kubeconfig *os.File) {
		if err := (&tenant{kubeconfig: kubeconfig}).handOver([]byte("it")); err != nil {
			t.Error(err)
		}
	})
	if got != "it" {
		t.Errorf("handed over %q", got)
	}
	var nobody *tenant // a node that has its sandbox for itself
	if err := nobody.handOver(nil); err != nil {
		t.Error(err)
	}
	nobody.tell("ready")
	nobody.leave()
}

func TestAFailureIsToldAndEndsTheProcess(t *testing.T) {
	command := child("fail")
	var out, outcome strings.Builder
	command.Stdout, command.Stderr = &out, &outcome
	var status *exec.ExitError
	if err := command.Run(); !errors.As(err, &status) || status.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if outcome.String() != "failed: kubelet: planted\n" || !strings.Contains(out.String(), "planted") {
		t.Errorf("told %q and %q", outcome.String(), out.String())
	}
}
