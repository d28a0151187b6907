package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	erofs "github.com/erofs/go-erofs"
)

// made is a folder with files about the size of a block, many entries, links, and names that sort in an odd way.
func made(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for at, size := range []int{0, 1, 4095, 4096, 4097, 100_000} {
		write := os.WriteFile(filepath.Join(folder, fmt.Sprint("f", size)), bytes.Repeat([]byte{byte('a' + at)}, size), 0o640)
		if write != nil {
			t.Fatal(write)
		}
	}
	for at := range 500 {
		name := filepath.Join(folder, "many", fmt.Sprint("entry-with-a-name-", at))
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Symlink("../elsewhere/"+strings.Repeat("x", 300), filepath.Join(folder, "many/link")),
		os.WriteFile(filepath.Join(folder, "many.exe"), []byte("#!"), 0o700),
		os.WriteFile(filepath.Join(folder, "many/ä b\n"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func image(t *testing.T, folder string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	if err := run([]string{folder, file}, "315532800"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("%d files are left beside the image", len(left)-1)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	folder := made(t)
	read, err := erofs.Open(bytes.NewReader(image(t, folder)))
	if err != nil {
		t.Fatal(err)
	}
	var names, found []string
	list := func(to *[]string) fs.WalkDirFunc {
		return func(name string, _ fs.DirEntry, err error) error { *to = append(*to, name); return err }
	}
	if err := fs.WalkDir(os.DirFS(folder), ".", list(&names)); err != nil {
		t.Fatal(err)
	}
	if err := fs.WalkDir(read, ".", list(&found)); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(names) != fmt.Sprint(found) {
		t.Errorf("the image has %q", found)
	}
	for _, name := range names {
		about, err := os.Lstat(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := fs.Lstat(read, name)
		if err != nil {
			t.Fatal(err)
		}
		stat := got.Sys().(*erofs.Stat)
		if stat.UID != 0 || stat.GID != 0 || !got.ModTime().Equal(time.Unix(315532800, 0)) {
			t.Errorf("%s: %+v", name, stat)
		}
		want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[about.Mode()&0o100 != 0]
		if about.Mode().Type() == fs.ModeSymlink {
			want = 0o777
		}
		if got.Mode().Type() != about.Mode().Type() || got.Mode().Perm() != want {
			t.Errorf("%s: %v, not %v", name, got.Mode(), want)
		}
		if about.Mode().IsRegular() {
			one, _ := os.ReadFile(filepath.Join(folder, name))
			other, err := fs.ReadFile(read, name)
			if err != nil || !bytes.Equal(one, other) {
				t.Errorf("%s: %d bytes, not %d: %v", name, len(other), len(one), err)
			}
		}
		if about.Mode().Type() == fs.ModeSymlink {
			one, _ := os.Readlink(filepath.Join(folder, name))
			if other, err := fs.ReadLink(read, name); err != nil || one != other {
				t.Errorf("%s -> %s, not %s: %v", name, other, one, err)
			}
		}
	}
}

func TestTheSameFilesMakeTheSameBytes(t *testing.T) {
	one, other := image(t, made(t)), image(t, made(t))
	if !bytes.Equal(one, other) {
		t.Error("two images differ")
	}
}

func TestWhatIsNoFile(t *testing.T) {
	folder, file := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run([]string{folder, file}, "0")
	if err == nil || !strings.Contains(err.Error(), "pipe: neither file, folder nor link") {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWrongWords(t *testing.T) {
	for _, words := range [][]string{nil, {"a"}, {"a", "b", "c"}, {"/nonexistent", filepath.Join(t.TempDir(), "x")}} {
		if run(words, "0") == nil {
			t.Errorf("%q", words)
		}
	}
	if err := run([]string{t.TempDir(), filepath.Join(t.TempDir(), "x")}, ""); err == nil {
		t.Error("no time")
	}
}
