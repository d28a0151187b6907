package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func owned(entry *tar.Header, uid, gid int) *tar.Header {
	entry.Uid, entry.Gid = uid, gid
	return entry
}

// merged is the folder of an image of these layers, and its modes and owners.
func merged(t *testing.T, layers ...[]*tar.Header) (fs.FS, map[string]string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if err := run(out, "k8s.io", []string{"example.org/a:1=" + makeLayout(t, layers...)}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(out, modesFile))
	if err != nil {
		t.Fatal(err)
	}
	noted, inside := map[string]string{}, map[string]string{}
	if err := json.Unmarshal(data, &noted); err != nil {
		t.Fatal(err)
	}
	for name, mode := range noted {
		if short, found := strings.CutPrefix(name, snapshotterFolder+"/snapshots/1/fs/"); found {
			inside[short] = mode
		}
	}
	return os.DirFS(filepath.Join(out, snapshotterFolder, "snapshots/1/fs")), inside
}

// A layer replaces files of those below and takes some away; what it puts there itself stays.
func TestLayersOverEachOther(t *testing.T) {
	found, modes := merged(t,
		[]*tar.Header{
			file("etc/a", 0o600, "a"), file("etc/b", 0o600, "b"), file("etc/c", 0o644, "c"), file("old/deep/x", 0o600, "x"),
			file("kept/one", 0o644, "one"), folder("was", 0o700), file("was/in", 0o600, ""), file("/slash", 0o644, "slash"),
		},
		[]*tar.Header{
			file("etc/.wh.a", 0o644, ""), file("etc/b", 0o644, "new b"), file("etc/.wh.none", 0o644, ""),
			file("old/new", 0o644, "new"), file("old/.wh..wh..opq", 0o644, ""), file("gone/.wh..wh..opq", 0o644, ""),
			file("kept/two", 0o644, "two"), folder("kept", 0o1777), file("was", 0o644, "a file"),
		},
	)
	for name, want := range map[string]string{
		"etc/b": "new b", "etc/c": "c", "old/new": "new", "kept/one": "one", "kept/two": "two", "was": "a file", "slash": "slash",
	} {
		if text, err := fs.ReadFile(found, name); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for _, name := range []string{"etc/a", "etc/.wh.a", "old/deep", "old/.wh..wh..opq", "gone"} {
		if _, err := fs.Stat(found, name); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	for name, want := range map[string]string{"etc": "0755", "old": "0755", "kept": "1777"} {
		if modes[name] != want {
			t.Errorf("%s: %s", name, modes[name])
		}
		delete(modes, name)
	}
	if len(modes) != 0 {
		t.Errorf("more is noted: %v", modes)
	}
}

func TestOwnersAndLinks(t *testing.T) {
	found, modes := merged(t, []*tar.Header{
		file("bin/busybox", 0o755, "box"), {Typeflag: tar.TypeLink, Name: "bin/sh", Linkname: "/bin/busybox"},
		owned(folder("data", 0o700), 70, 71), owned(file("data/file", 0o644, "text"), 70, 0), owned(link("data/link", "file"), 70, 70),
	})
	one, err := fs.Stat(found, "bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	two, err := fs.Stat(found, "bin/sh")
	if err != nil || !os.SameFile(one, two) {
		t.Errorf("sh is another file: %v", err)
	}
	want := map[string]string{"bin": "0755", "data": "0700 70:71", "data/file": "0644 70:0"}
	for name, mode := range modes {
		if want[name] != mode {
			t.Errorf("%s: %s", name, mode)
		}
		delete(want, name)
	}
	if len(want) != 0 {
		t.Errorf("not noted: %v", want)
	}
}

// A packed layer stays packed among the blobs, and must unpack to what the image says.
func TestPackedLayers(t *testing.T) {
	plain := archive(t, []*tar.Header{file("etc/motd", 0o644, "hello")})
	var data bytes.Buffer
	packer := gzip.NewWriter(&data)
	if _, err := packer.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := packer.Close(); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[digest.Digest]string{
		digest.FromBytes(plain):  "",
		digest.FromString("not"): "a layer unpacks to other bytes than those of " + digest.FromString("not").String(),
	} {
		layout := makeLayout(t)
		layer := put(t, layout, ocispec.MediaTypeImageLayerGzip, data.Bytes())
		describe(t, layout, []ocispec.Descriptor{layer}, []digest.Digest{said})
		out := filepath.Join(t.TempDir(), "out")
		err := run(out, "k8s.io", []string{"example.org/a:1=" + layout})
		if want != "" {
			if err == nil || err.Error() != "example.org/a:1: "+want {
				t.Errorf("said %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(out, snapshotterFolder, "snapshots/1/fs/etc/motd"))
		if err != nil || string(text) != "hello" {
			t.Errorf("%q, %v", text, err)
		}
		if _, err := os.Stat(filepath.Join(out, contentFolder, "blobs/sha256", layer.Digest.Encoded())); err != nil {
			t.Error(err)
		}
	}
}

func TestLayersOfOtherKinds(t *testing.T) {
	layout := makeLayout(t)
	layer := put(t, layout, "application/vnd.example.chart", []byte("chart"))
	describe(t, layout, []ocispec.Descriptor{layer}, []digest.Digest{layer.Digest})
	err := run(filepath.Join(t.TempDir(), "out"), "k8s.io", []string{"example.org/a:1=" + layout})
	if err == nil || !strings.HasSuffix(err.Error(), `"application/vnd.example.chart" is no layer of files`) {
		t.Errorf("said %v", err)
	}
}
