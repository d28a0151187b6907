package main

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRefusedLayers(t *testing.T) {
	ordinary := file("etc/motd", 0o644, "hello")
	for _, each := range []struct {
		name   string
		layers [][]*tar.Header
		wanted string
	}{
		{"outside", [][]*tar.Header{{file("../motd", 0o644, "")}}, `"../motd" leaves the layer's folder`},
		{"deleted outside", [][]*tar.Header{{file("../.wh.motd", 0o644, "")}}, `"../.wh.motd" leaves the layer's folder`},
		{"deleted itself", [][]*tar.Header{{file(".wh...", 0o644, "")}}, "RemoveAll ..: path escapes from parent"},
		{"device", [][]*tar.Header{{{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}}},
			"dev/null is neither a file, a folder nor a link"},
		{"pipe", [][]*tar.Header{{{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o644}}},
			"pipe is neither a file, a folder nor a link"},
		{"hard link to nothing", [][]*tar.Header{{ordinary, {Typeflag: tar.TypeLink, Name: "b", Linkname: "etc/mot"}}},
			"linkat etc/mot b: no such file or directory"},
		{"hard link outside", [][]*tar.Header{{ordinary, {Typeflag: tar.TypeLink, Name: "b", Linkname: "../b"}}},
			"linkat ../b b: path escapes from parent"},
		{"attribute", [][]*tar.Header{{{Typeflag: tar.TypeReg, Name: "ping", Mode: 0o755,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x"}}}},
			"ping has the extended attribute security.capability; files with such attributes are not taken"},
		{"through a link", [][]*tar.Header{{link("etc", "/etc"), file("etc/motd", 0o644, "")}},
			"mkdirat etc: statat etc: path escapes from parent"},
	} {
		t.Run(each.name, func(t *testing.T) {
			layout := makeLayout(t, each.layers...)
			err := run(filepath.Join(t.TempDir(), "out"), "k8s.io", []string{"example.org/a:1=" + layout})
			if err == nil || err.Error() != "example.org/a:1: "+each.wanted {
				t.Errorf("said %v", err)
			}
		})
	}
}

func TestRefusedArguments(t *testing.T) {
	layout := makeLayout(t, []*tar.Header{file("a", 0o644, "")})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, each := range []struct{ out, argument, wanted string }{
		{"", "example.org/a:1=" + layout, "usage: imagestore --out DIR NAME=LAYOUT [NAME=LAYOUT ...]"},
		{"out", "example.org/a:1", `expected NAME=LAYOUT, got "example.org/a:1"`},
		{"out", "a:1=" + layout, "a:1: the kubelet would look for this image as docker.io/library/a:1; give it that name"},
		{"out", "example.org/a=" + layout, "example.org/a: the kubelet would look for this image as example.org/a:latest; give it that name"},
		{"out", "example.org/A:1=" + layout, "example.org/A:1: invalid reference format: repository name (A) must be lowercase"},
		{full, "example.org/a:1=" + layout, full + " is not empty"},
		{"out", "example.org/a:1=/nowhere", "/nowhere: open /nowhere/index.json: no such file or directory"},
	} {
		out := each.out
		if out == "out" {
			out = filepath.Join(t.TempDir(), "out")
		}
		if err := run(out, "k8s.io", []string{each.argument}); err == nil || err.Error() != each.wanted {
			t.Errorf("%s: said %v", each.argument, err)
		}
	}
}

// A layout whose bytes are not what their digests say is refused, layers too.
func TestRefusedBlobs(t *testing.T) {
	layout := makeLayout(t, []*tar.Header{file("a", 0o644, "text")})
	image, err := open("example.org/a:1", layout)
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range []struct{ path, wanted string }{
		{image.path(image.manifest.Layers[0].Digest), "unexpected commit digest"},
		{image.path(image.manifest.Config.Digest), "its bytes have another digest"},
		{image.path(image.descriptor.Digest), "its bytes have another digest"},
	} {
		sound, err := os.ReadFile(each.path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := append([]byte(nil), sound...)
		damaged[len(damaged)-1] ^= 1
		if err := os.WriteFile(each.path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		err = run(filepath.Join(t.TempDir(), "out"), "k8s.io", []string{"example.org/a:1=" + layout})
		if err == nil || !strings.Contains(err.Error(), each.wanted) {
			t.Errorf("%s damaged: said %v", filepath.Base(each.path), err)
		}
		if err := os.WriteFile(each.path, sound, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
