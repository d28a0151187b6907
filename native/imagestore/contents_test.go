package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/image-spec/identity"
)

// reopened is a finished store of twoImages as containerd sees it.
func reopened(t *testing.T) (context.Context, *store) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if err := run(out, "k8s.io", twoImages(t)); err != nil {
		t.Fatal(err)
	}
	one, shut, err := use(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shut(); err != nil {
			t.Error(err)
		}
	})
	return namespaces.WithNamespace(context.Background(), "k8s.io"), one
}

// Each image has its tag, its digest and its id, is complete and unpacked.
func TestImagesAreComplete(t *testing.T) {
	ctx, one := reopened(t)
	found, err := metadata.NewImageStore(one.db).List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, image := range found {
		name, _, _ := strings.Cut(image.Name, "sha256:")
		names = append(names, name)
		if image.Labels["io.cri-containerd.image"] != "managed" {
			t.Errorf("%s: labels %v", image.Name, image.Labels)
		}
		available, required, present, missing, err := images.Check(ctx, one.db.ContentStore(), image.Target, platforms.Default())
		if err != nil || !available || len(missing) != 0 || len(present) != len(required) {
			t.Errorf("%s: available %v, present %v of %v, %v", image.Name, available, present, required, err)
		}
		diffs, err := image.RootFS(ctx, one.db.ContentStore(), platforms.Default())
		if err != nil {
			t.Fatal(err)
		}
		status, err := one.db.Snapshotter(snapshotter).Stat(ctx, identity.ChainID(diffs).String())
		if err != nil || status.Kind != snapshots.KindCommitted {
			t.Errorf("%s: snapshot %v, %v", image.Name, status, err)
		}
	}
	wanted := []string{"", "", "example.org/pause:1", "example.org/pause@", "example.org/tools/large:2", "example.org/tools/large@"}
	if slices.Sort(names); !slices.Equal(names, wanted) {
		t.Errorf("names %q", names)
	}
}

// The garbage collector leaves all of it, and nothing of it when the names are gone.
func TestGarbageCollection(t *testing.T) {
	ctx, one := reopened(t)
	count := func() (blobs, unpacked int) {
		walk := func(content.Info) error { blobs++; return nil }
		if err := one.db.ContentStore().Walk(ctx, walk); err != nil {
			t.Fatal(err)
		}
		each := func(context.Context, snapshots.Info) error { unpacked++; return nil }
		if err := one.db.Snapshotter(snapshotter).Walk(ctx, each); err != nil {
			t.Fatal(err)
		}
		return blobs, unpacked
	}
	for _, wanted := range [][2]int{{7, 2}, {0, 0}} {
		if _, err := one.db.GarbageCollect(ctx); err != nil {
			t.Fatal(err)
		}
		if blobs, unpacked := count(); blobs != wanted[0] || unpacked != wanted[1] {
			t.Errorf("%d blobs and %d snapshots, expected %v", blobs, unpacked, wanted)
		}
		names, err := metadata.NewImageStore(one.db).List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range names {
			if err := metadata.NewImageStore(one.db).Delete(ctx, image.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Files are where the overlay snapshotter looks for them, all layers of an image in one folder.
func TestSnapshots(t *testing.T) {
	_, one := reopened(t)
	root := filepath.Join(one.root, snapshotterFolder, "snapshots")
	for name, wanted := range map[string]string{
		"1/fs/pause": "program", "2/fs/bin/sh": "shell", "2/fs/bin/ls": "shell", "2/fs/etc/shadow": "secret",
		"2/fs/etc/hosts": "127.0.0.1 localhost\n", "2/fs/su": "su",
	} {
		if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != wanted {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for name, executable := range map[string]bool{"1/fs/pause": true, "2/fs/etc/shadow": false, "2/fs/su": true} {
		status, err := os.Stat(filepath.Join(root, name))
		if err != nil || (status.Mode()&0o111 != 0) != executable {
			t.Errorf("%s: %v, %v", name, status, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(root, "2/fs/usr")); target != "/bin" {
		t.Errorf("usr -> %s, %v", target, err)
	}
}

// What a store of modes 0444 and 0555 would lose is listed: all folders, and files that are not plain.
func TestModes(t *testing.T) {
	_, one := reopened(t)
	data, err := os.ReadFile(filepath.Join(one.root, modesFile))
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]string{}
	if err := json.Unmarshal(data, &modes); err != nil {
		t.Fatal(err)
	}
	wanted := map[string]string{
		"1/fs": "0755", "2/fs": "0755", "2/fs/bin": "0755", "2/fs/etc": "0755", "2/fs/etc/shadow": "0600",
		"2/fs/root": "0700", "2/fs/tmp": "1777", "2/fs/su": "4755",
	}
	for name, mode := range modes {
		inside, _ := strings.CutPrefix(name, snapshotterFolder+"/snapshots/")
		if wanted[inside] != mode {
			t.Errorf("%s: mode %s, expected %q", name, mode, wanted[inside])
		}
		delete(wanted, inside)
	}
	if len(wanted) != 0 {
		t.Errorf("not listed: %v", wanted)
	}
}

// An image may have two names, and two images the same layer.
func TestShared(t *testing.T) {
	base := []*tar.Header{file("etc/motd", 0o644, "hello")}
	one, two := makeLayout(t, base), makeLayout(t, base, []*tar.Header{file("more", 0o644, "more")})
	out := filepath.Join(t.TempDir(), "out")
	if err := run(out, "k8s.io", []string{"example.org/a:1=" + one, "example.org/a:2=" + one, "example.org/b:1=" + two}); err != nil {
		t.Fatal(err)
	}
	made, err := fs.Glob(os.DirFS(filepath.Join(out, snapshotterFolder, "snapshots")), "*")
	if err != nil || !slices.Equal(made, []string{"1", "2"}) {
		t.Errorf("snapshots %v, %v", made, err)
	}
	again := filepath.Join(t.TempDir(), "out")
	err = run(again, "k8s.io", []string{"example.org/a:1=" + one, "example.org/a:1=" + two})
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("one name for two images: %v", err)
	}
}
