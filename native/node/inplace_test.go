package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandkube/node/logs"
	"sandkube/node/stages"
)

const role = "SANDKUBE_TEST_ROLE"

// TestMain is also what a test starts: a process that fails.
func TestMain(m *testing.M) {
	switch os.Getenv(role) {
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

func TestANodeInPlaceIsTheFirstProcess(t *testing.T) {
	var n node
	if err := n.settle(options{}); err == nil || n.tenant != nil {
		t.Errorf("process %d: %v", os.Getpid(), err)
	}
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
	whole := n.whole()
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
