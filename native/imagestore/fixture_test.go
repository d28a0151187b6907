package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func file(name string, mode int64, text string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text)), Linkname: text}
}

func folder(name string, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

func link(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Mode: 0o777, Linkname: target}
}

// archive is a layer; the text of a file is in its header's Linkname until here.
func archive(t *testing.T, entries []*tar.Header) []byte {
	t.Helper()
	var data bytes.Buffer
	writer := tar.NewWriter(&data)
	for _, entry := range entries {
		header, text := *entry, ""
		if header.Typeflag == tar.TypeReg {
			header.Linkname, text = "", entry.Linkname
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func put(t *testing.T, layout, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	id := digest.FromBytes(data)
	path := filepath.Join(layout, "blobs", "sha256", id.Encoded())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: id, Size: int64(len(data))}
}

func encoded(t *testing.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// makeLayout writes an image layout of these layers and returns its folder.
func makeLayout(t *testing.T, layers ...[]*tar.Header) string {
	t.Helper()
	layout := t.TempDir()
	var packed []ocispec.Descriptor
	var plain []digest.Digest
	for _, entries := range layers {
		layer := put(t, layout, ocispec.MediaTypeImageLayer, archive(t, entries))
		packed, plain = append(packed, layer), append(plain, layer.Digest)
	}
	describe(t, layout, packed, plain)
	return layout
}

// describe writes the documents of an image of these layers, and their digests as they are unpacked.
func describe(t *testing.T, layout string, packed []ocispec.Descriptor, plain []digest.Digest) {
	t.Helper()
	config := ocispec.Image{
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: plain},
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: packed,
	}
	manifest.Config = put(t, layout, ocispec.MediaTypeImageConfig, encoded(t, config))
	entry := put(t, layout, ocispec.MediaTypeImageManifest, encoded(t, manifest))
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{entry}}
	if err := os.WriteFile(filepath.Join(layout, "index.json"), encoded(t, index), 0o644); err != nil {
		t.Fatal(err)
	}
}

// twoImages are arguments for run: a small image, and one of two layers with all that a layer may hold.
func twoImages(t *testing.T) []string {
	t.Helper()
	small := makeLayout(t, []*tar.Header{file("pause", 0o755, "program")})
	large := makeLayout(t,
		[]*tar.Header{
			folder("./", 0o755), folder("bin/", 0o755), file("bin/sh", 0o755, "shell"), link("bin/ls", "sh"),
			folder("tmp", 0o1777), folder("root", 0o700), file("etc/shadow", 0o600, "secret"), link("usr", "/bin"),
		},
		[]*tar.Header{folder("etc", 0o755), file("etc/hosts", 0o644, "127.0.0.1 localhost\n"), file("su", 0o4755, "su")},
	)
	return []string{"example.org/pause:1=" + small, "example.org/tools/large:2=" + large}
}

// treeDigest stands for the names, kinds, executable bits, link targets and bytes of all files below folder.
func treeDigest(t *testing.T, folder string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		status, err := entry.Info()
		if err != nil {
			return err
		}
		var content []byte
		switch status.Mode().Type() {
		case 0:
			content, err = os.ReadFile(path)
		case fs.ModeSymlink:
			var target string
			target, err = os.Readlink(path)
			content = []byte(target)
		}
		name, _ := filepath.Rel(folder, path)
		fmt.Fprintf(sum, "%q %v %v %x\n", name, status.Mode().Type(), status.Mode()&0o100, sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
