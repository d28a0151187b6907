package boot

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"sandkube/node/cluster"
	"sandkube/node/fixes"
)

func TestEveryTemplateIsFilledIn(t *testing.T) {
	source, target := t.TempDir(), filepath.Join(t.TempDir(), "made")
	for name, text := range map[string]string{"hosts": "{{.Cluster.NodeAddress}} {{.Cluster.NodeName}}\n", "deep/er/file": "{{.Cluster.Pods}}"} {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Render(fixes.Plan{}, cluster.Default, source, target); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"hosts": "10.88.0.1 runsc\n", "deep/er/file": "10.88.0.0/24"} {
		if got, err := os.ReadFile(filepath.Join(target, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(source, "wrong"), []byte("{{.Nothing}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Render(fixes.Plan{}, cluster.Default, source, target); err == nil {
		t.Error("a template that asks for what is not there was filled in")
	}
}

// It is of its form, and another one each time, but for a node that finds the one of its earlier boots.
func TestMachineID(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		text := machineID()
		if !regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n$`).Match(text) || seen[string(text)] {
			t.Errorf("%q", text)
		}
		seen[string(text)] = true
	}
	stays := t.TempDir()
	for at := range 2 {
		configured := t.TempDir()
		if err := keepMachineID(stays, configured); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(configured, "machine-id"))
		if err != nil || seen[string(text)] != (at == 1) {
			t.Errorf("boot %d: %q, %v", at, text, err)
		}
		seen[string(text)] = true
	}
}

// What is there is set, what is not there is not made.
func TestTune(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "net/ipv4/ip_local_port_range")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("16000 65535\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tune(folder)
	if got, err := os.ReadFile(path); err != nil || string(got) != "32768 60999\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "net/ipv4/tcp_recovery")); !os.IsNotExist(err) {
		t.Errorf("a setting was made: %v", err)
	}
}
