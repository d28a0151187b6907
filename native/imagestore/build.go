package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// Names of containerd's plug-in folders (containerd 2.1, version 3 configuration).
const (
	contentFolder     = "io.containerd.content.v1.content"
	metadataFolder    = "io.containerd.metadata.v1.bolt"
	snapshotterFolder = "io.containerd.snapshotter.v1.overlayfs"
	snapshotter       = "overlayfs"
	modesFile         = "modes.json"
)

// managed is the label by which the CRI plug-in knows its images.
var managed = map[string]string{"io.cri-containerd.image": "managed"}

// store is an open containerd root.
type store struct {
	root  string
	db    *metadata.DB
	modes map[string]string // path below root -> octal mode, and owner if that is not root
	sizes map[string]int64  // chain id -> bytes of the snapshot's files
}

// build fills out with the images, then writes both databases anew with fixed times.
func build(ctx context.Context, out, namespace string, all []layout) (err error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	if found, err := os.ReadDir(out); err == nil && len(found) > 0 {
		return fmt.Errorf("%s is not empty", out)
	}
	one, shut, err := use(out)
	if err != nil {
		return err
	}
	for _, image := range all {
		if err := one.add(ctx, image); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", image.name, err), shut())
		}
	}
	if err := shut(); err != nil {
		return err
	}
	if err := one.settle(); err != nil {
		return err
	}
	data, err := json.Marshal(one.modes) // maps marshal in the order of their keys
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, modesFile), append(data, '\n'), 0o644)
}

// use opens the store in a folder, as containerd does; a folder without one gets an empty store.
func use(root string) (*store, func() error, error) {
	blobs, err := local.NewStore(filepath.Join(root, contentFolder))
	if err != nil {
		return nil, nil, err
	}
	layers, err := overlay.NewSnapshotter(filepath.Join(root, snapshotterFolder))
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Join(root, metadataFolder), 0o755); err != nil {
		return nil, nil, err
	}
	file, err := bolt.Open(filepath.Join(root, metadataFolder, "meta.db"), 0o644, nil)
	if err != nil {
		return nil, nil, err
	}
	db := metadata.NewDB(file, blobs, map[string]snapshots.Snapshotter{snapshotter: layers})
	shut := func() error { return errors.Join(layers.Close(), file.Close()) }
	if err := db.Init(context.Background()); err != nil {
		return nil, nil, errors.Join(err, shut())
	}
	return &store{root: root, db: db, modes: map[string]string{}, sizes: map[string]int64{}}, shut, nil
}

// add imports one image under all its references, as a pull through the CRI does.
func (s *store) add(ctx context.Context, image layout) error {
	chain := identity.ChainID(image.config.RootFS.DiffIDs).String()
	if err := s.write(ctx, image, image.manifest.Config, map[string]string{
		"containerd.io/gc.ref.snapshot." + snapshotter: chain,
	}); err != nil {
		return err
	}
	children := map[string]string{"containerd.io/gc.ref.content.config": image.manifest.Config.Digest.String()}
	for at, layer := range image.manifest.Layers {
		plain := image.config.RootFS.DiffIDs[at].String()
		if err := s.write(ctx, image, layer, map[string]string{"containerd.io/uncompressed": plain}); err != nil {
			return err
		}
		children[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", at)] = layer.Digest.String()
	}
	if err := s.write(ctx, image, image.descriptor, children); err != nil {
		return err
	}
	if err := s.unpack(ctx, image); err != nil {
		return err
	}
	names, err := image.references()
	if err != nil {
		return err
	}
	for _, name := range names {
		record := images.Image{Name: name, Target: image.descriptor, Labels: maps.Clone(managed)}
		_, err := metadata.NewImageStore(s.db).Create(ctx, record)
		// An image with two names has one id, and one digest in a repository.
		if err != nil && (name == image.name || !errdefs.IsAlreadyExists(err)) {
			return err
		}
	}
	return nil
}

// write puts one blob into the content store; it is checked against its digest there.
func (s *store) write(ctx context.Context, image layout, blob ocispec.Descriptor, labels map[string]string) error {
	file, err := os.Open(image.path(blob.Digest))
	if err != nil {
		return err
	}
	defer file.Close()
	err = content.WriteBlob(ctx, s.db.ContentStore(), blob.Digest.String(), file, blob, content.WithLabels(labels))
	if errdefs.IsAlreadyExists(err) {
		return nil // another image has the same blob
	}
	return err
}

// unpack makes the snapshot that containers of an image begin with, unless there is one: that of its last layer. It has all layers
// in one, since a layer that takes files of another one away does so by devices, which our store cannot hold; containerd
// looks for those below only where that one is missing.
func (s *store) unpack(ctx context.Context, image layout) error {
	layers := s.db.Snapshotter(snapshotter)
	chain := identity.ChainID(image.config.RootFS.DiffIDs).String()
	if _, err := layers.Stat(ctx, chain); err == nil {
		return nil
	}
	key := "unpack " + chain
	mounts, err := layers.Prepare(ctx, key, "")
	if err != nil {
		return err
	}
	if len(mounts) != 1 || mounts[0].Type != "bind" {
		return fmt.Errorf("no folder for a snapshot in %v", mounts)
	}
	if s.sizes[chain], err = s.extract(image, mounts[0].Source); err != nil {
		return err
	}
	return layers.Commit(ctx, chain, key)
}
