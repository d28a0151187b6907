package images

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// stored is a small image store, with the given list of modes.
func stored(t *testing.T, modes string) string {
	t.Helper()
	source := t.TempDir()
	for name, text := range map[string]string{
		metadata + "/meta.db":                  "images",
		snapshotter + "/metadata.db":           "snapshots",
		content + "/blobs/sha256/00ff":         "blob",
		snapshotter + "/snapshots/1/fs/bin/sh": "shell",
		snapshotter + "/snapshots/2/fs/tmp/x":  "x",
		ModesFile:                              modes,
	} {
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return source
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMount(t *testing.T) {
	source := stored(t, "{}")
	target := filepath.Join(t.TempDir(), "containerd")
	if err := Mount(source, target); err != nil {
		t.Fatal(err)
	}
	for name, wanted := range map[string]string{
		metadata + "/meta.db":                  "images",
		snapshotter + "/metadata.db":           "snapshots",
		content + "/blobs/sha256/00ff":         "blob",
		snapshotter + "/snapshots/1/fs/bin/sh": "shell",
	} {
		if text := read(t, filepath.Join(target, name)); text != wanted {
			t.Errorf("%s: %q", name, text)
		}
	}
}

// containerd writes to the databases, and deletes blobs and snapshots with os.RemoveAll:
// the store that they come from stays as it is.
func TestSourceStays(t *testing.T) {
	source := stored(t, "{}")
	target := t.TempDir()
	if err := Mount(source, target); err != nil {
		t.Fatal(err)
	}
	database := metadata + "/meta.db"
	if err := os.WriteFile(filepath.Join(target, database), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	blob, snapshot := content+"/blobs/sha256/00ff", snapshotter+"/snapshots/1"
	for _, name := range []string{blob, snapshot} {
		if err := os.RemoveAll(filepath.Join(target, name)); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(target, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for name, wanted := range map[string]string{database: "images", blob: "blob", snapshot + "/fs/bin/sh": "shell"} {
		if text := read(t, filepath.Join(source, name)); text != wanted {
			t.Errorf("%s: %q", name, text)
		}
	}
	// A pull of the same image puts a file where the link was.
	if err := os.WriteFile(filepath.Join(target, blob), []byte("pulled"), 0o444); err != nil {
		t.Error(err)
	}
}

func TestModes(t *testing.T) {
	snapshots := snapshotter + "/snapshots/"
	source := stored(t, `{"`+snapshots+`1/fs/bin/sh":"4755","`+snapshots+`2/fs/tmp":"1777","`+snapshots+`1/fs/bin":"0700"}`)
	if err := Mount(source, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for name, wanted := range map[string]fs.FileMode{
		"1/fs/bin/sh": 0o755 | fs.ModeSetuid,
		"2/fs/tmp":    0o777 | fs.ModeSticky | fs.ModeDir,
		"1/fs/bin":    0o700 | fs.ModeDir,
		"2/fs/tmp/x":  0o444,
	} {
		status, err := os.Stat(filepath.Join(source, snapshots, name))
		if err != nil || status.Mode() != wanted {
			t.Errorf("%s: %v, %v, expected %v", name, status.Mode(), err, wanted)
		}
	}
}

func TestOwners(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	if err := os.Chown(t.TempDir(), 70, 71); err != nil {
		t.Skip("a user namespace without these ids: ", err)
	}
	name := snapshotter + "/snapshots/1/fs/bin/sh"
	source := stored(t, `{"`+name+`":"4755 70:71"}`)
	if err := Mount(source, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	status, err := os.Stat(filepath.Join(source, name))
	if err != nil {
		t.Fatal(err)
	}
	owner := status.Sys().(*syscall.Stat_t)
	if owner.Uid != 70 || owner.Gid != 71 || status.Mode() != 0o755|fs.ModeSetuid {
		t.Errorf("%d:%d, %v", owner.Uid, owner.Gid, status.Mode())
	}
}

func TestRefusedModes(t *testing.T) {
	for modes, wanted := range map[string]string{
		"[":                "modes.json: unexpected end of JSON input",
		`{"a":"rwx"}`:      `modes.json: a: strconv.ParseUint: parsing "rwx": invalid syntax`,
		`{"absent":"755"}`: "absent: no such file or directory",
		`{"a":"0755 x:0"}`: `modes.json: a: strconv.Atoi: parsing "x": invalid syntax`,
	} {
		if err := Mount(stored(t, modes), t.TempDir()); err == nil || !strings.HasSuffix(err.Error(), wanted) {
			t.Errorf("%s: said %v", modes, err)
		}
	}
}

// A node may be built without images; half a store is an error.
func TestNoImages(t *testing.T) {
	target := t.TempDir()
	if err := Mount(filepath.Join(t.TempDir(), "absent"), target); err != nil {
		t.Error(err)
	}
	if made, err := os.ReadDir(target); err != nil || len(made) != 0 {
		t.Errorf("made %v, %v", made, err)
	}
	if err := Mount(t.TempDir(), target); !os.IsNotExist(err) {
		t.Errorf("an empty store: said %v", err)
	}
}
