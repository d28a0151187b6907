package boot

import (
	"os"
	"path/filepath"
	"testing"
)

// laid makes files of a folder.
func laid(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); string(got) != want || err != nil {
		t.Errorf("%s: %q, %v", path, got, err)
	}
}

func TestACgroupHasWhatItsParentsHave(t *testing.T) {
	// Files of cgroups are there when a folder is made: here those of the child are made before.
	root := laid(t, map[string]string{
		"cgroup.controllers": "cpu memory pids\n", "nodes/cgroup.controllers": "memory\n",
	})
	for range 2 { // again, where it is there
		if err := MakeCgroup(root, "/nodes/runsc-2"); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, filepath.Join(root, "cgroup.subtree_control"), "+pids") // a write each, the last one shows
	holds(t, filepath.Join(root, "nodes/cgroup.subtree_control"), "+memory")
	if found, err := os.Stat(filepath.Join(root, "nodes/runsc-2")); err != nil || !found.IsDir() {
		t.Error(err)
	}
}

func TestACgroupOfVersion1HasCores(t *testing.T) {
	root := laid(t, map[string]string{"cpuset/cpuset.cpus": "0-1\n", "cpuset/cpuset.mems": "0\n", "memory/tasks": ""})
	if err := os.Symlink("cpuset", filepath.Join(root, "other")); err != nil {
		t.Fatal(err)
	}
	if err := MakeCgroup(root, "/nodes/runsc-2"); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(root, "cpuset/nodes/runsc-2/cpuset.cpus"), "0-1\n")
	holds(t, filepath.Join(root, "cpuset/nodes/runsc-2/cpuset.mems"), "0\n")
	if _, err := os.Stat(filepath.Join(root, "memory/nodes/runsc-2")); err != nil {
		t.Error(err)
	}
}
