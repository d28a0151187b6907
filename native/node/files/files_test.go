package files

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	for _, text := range []string{"one", "", "two"} {
		if err := Replace(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil || string(data) != text {
			t.Errorf("%q, %v, not %q", data, err, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	checkAlone(t, folder)
}

// A name that cannot be had leaves nothing beside it, and what had it as it was.
func TestReplaceOfAFolder(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "file", "inner"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(folder, "file"), []byte("text"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	checkAlone(t, folder)
	if err := Replace(filepath.Join(folder, "none", "file"), nil, 0o600); err == nil {
		t.Error("a file was made in a folder that is not there")
	}
}

func checkAlone(t *testing.T, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
