package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"sandkube/node/settings"
)

func of(t *testing.T, text string) given {
	t.Helper()
	read, err := settings.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return newGiven(read)
}

func TestWhatIsLeftOut(t *testing.T) {
	all := of(t, "{}")
	if len(all.addresses()) != 2 || len(all.whole()) != 7 || all.seed() == "" {
		t.Errorf("%v %v %q", all.addresses(), all.whole(), all.seed())
	}
	less := of(t, `{"disable": ["dns", "services"]}`)
	if len(less.addresses()) != 1 || slices.Contains(less.whole(), "dns") || slices.Contains(less.whole(), "services") || less.seed() != "" {
		t.Errorf("%v %v %q", less.addresses(), less.whole(), less.seed())
	}
}

func TestTheUsersObjectsAreRead(t *testing.T) {
	one := of(t, `{"manifests": [{"name": "a.yaml", "text": "kind: ConfigMap\nmetadata: {name: a}\n---\nkind: Secret\nmetadata: {name: b}"}]}`)
	sets, err := one.sets()
	if err != nil || len(sets) != 1 || sets[0].Name != "a.yaml" || len(sets[0].Objects) != 2 {
		t.Errorf("%+v, %v", sets, err)
	}
	one = of(t, `{"manifests": [{"name": "b.yaml", "text": "kind: ConfigMap"}]}`)
	if _, err := one.sets(); err == nil || err.Error() != "b.yaml: an object without kind or name" {
		t.Error(err)
	}
}

func TestANodeThatIsRefused(t *testing.T) {
	line := `E1130 09:00:00.1 12 kubelet_node_status.go:107] "Unable to register node with API server" err="Node \"runsc\" is invalid: metadata.labels: Invalid value: \"-\": no" node="runsc"`
	if err := refused("kubelet", line); err == nil || err.Error() != `Node "runsc" is invalid: metadata.labels: Invalid value: "-": no` {
		t.Error(err)
	}
	for component, text := range map[string]string{
		"apiserver": line,
		"kubelet":   `"Unable to register node with API server" err="Post \"https://127.0.0.1:6443\": connection refused" node="is invalid: "`,
	} {
		if err := refused(component, text); err != nil {
			t.Errorf("%s: %v", component, err)
		}
	}
}

func TestTheLastWordOfAProgram(t *testing.T) {
	status := errors.New("exit status 1")
	if err := lastWord("containerd", []string{"a", "containerd: no such key"}, status); err.Error() != "no such key" {
		t.Error(err)
	}
	for _, log := range [][]string{nil, {"containerd: earlier", "time=..."}} {
		if err := lastWord("containerd", log, status); err != status {
			t.Errorf("%v: %v", log, err)
		}
	}
}

type chunks chan string

func (c chunks) Write(data []byte) (int, error) { c <- string(data); return len(data), nil }

func TestWhatIsPrintedIsLogged(t *testing.T) {
	before := os.Stdout
	defer func() { os.Stdout = before }()
	lines := make(chunks, 2)
	if err := divert(lines); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 100_000)
	if _, err := os.Stdout.WriteString(long + "\nshort\n"); err != nil {
		t.Fatal(err)
	}
	if first, second := <-lines, <-lines; first != long+"\n" || second != "short\n" {
		t.Errorf("%d bytes, %q", len(first), second)
	}
}
