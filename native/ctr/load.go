package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const snapshotter = "overlayfs"

// platform is what the node runs. Images of its later variants (amd64/v3) are left to the programs in them.
var platform = platforms.Only(ocispec.Platform{OS: "linux", Architecture: "amd64"})

// wanted is an image of the archive: the digest of its configuration, its names as people write them, and blobs that need
// not be sent where they are there.
type wanted struct {
	Config digest.Digest   `json:"config"`
	Names  []string        `json:"names"`
	Blobs  []digest.Digest `json:"blobs"`
}

// load reads a line of JSON, an array of what is wanted, and says which blobs it lacks, `{"lacks": […]}`; then it reads an
// archive without the others. Where all images are there it reads none. Last is `{"loaded": […]}`. All of an archive is loaded or nothing of it: images get
// their names when every layer is unpacked, and until then a lease alone keeps what came of them.
func load(ctx context.Context, node *node, _ string) (err error) {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	var all []wanted
	if err := json.Unmarshal(line, &all); err != nil {
		return err
	}
	made := make([]*image, len(all))
	for at, each := range all {
		if made[at], err = named(each); err != nil {
			return err
		}
	}
	if node.has(ctx, made) {
		say(map[string]any{"loaded": made})
		return nil
	}
	ctx, end, err := node.lease(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	lacks, err := node.lacks(ctx, all)
	if err != nil {
		return err
	}
	say(map[string]any{"lacks": lacks})
	index, err := archive.ImportIndex(ctx, node.client.ContentStore(), input)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, input); err != nil { // so that whoever sends is not told that nobody reads
		return err
	}
	if err := node.find(ctx, index, made); err != nil {
		return err
	}
	for _, each := range made {
		if err := node.unpack(ctx, each); err != nil {
			return err
		}
	}
	for _, each := range made {
		if err := node.name(ctx, each); err != nil {
			return err
		}
	}
	if err := node.await(ctx, made); err != nil {
		return err
	}
	say(map[string]any{"loaded": made})
	return nil
}

// lease makes one for what comes; its end removes what nothing else keeps by then.
func (n *node) lease(ctx context.Context) (context.Context, func() error, error) {
	service := n.client.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID(), leases.WithExpiration(24*time.Hour))
	if err != nil {
		return nil, nil, err
	}
	end := func() error { return service.Delete(context.WithoutCancel(ctx), lease, leases.SynchronousDelete) }
	return leases.WithLease(ctx, lease.ID), end, nil
}

// lacks are the blobs that are not there. The others are kept from now on.
func (n *node) lacks(ctx context.Context, all []wanted) ([]digest.Digest, error) {
	id, _ := leases.FromContext(ctx)
	found := []digest.Digest{}
	for _, each := range all {
		for _, blob := range each.Blobs {
			kept := leases.Resource{ID: blob.String(), Type: "content"}
			if err := n.client.LeasesService().AddResource(ctx, leases.Lease{ID: id}, kept); err != nil {
				return nil, err
			}
			if _, err := n.client.ContentStore().Info(ctx, blob); errdefs.IsNotFound(err) {
				found = append(found, blob)
			} else if err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// find has each image know what it is made from, and marks that as its own.
func (n *node) find(ctx context.Context, index ocispec.Descriptor, all []*image) error {
	store := n.client.ContentStore()
	data, err := content.ReadBlob(ctx, store, index)
	if err != nil {
		return err
	}
	var entries ocispec.Index
	if err := json.Unmarshal(data, &entries); err != nil {
		return err
	}
	for _, each := range all {
		for _, entry := range entries.Manifests {
			manifest, err := images.Manifest(ctx, store, entry, platform)
			if err == nil && manifest.Config.Digest == each.Config {
				each.target = &entry
				break
			}
			if err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		if each.target == nil {
			return fmt.Errorf("what leads to the configuration %s is not whole: its bytes have another digest", each.Config)
		}
		_, _, _, missing, err := images.Check(ctx, store, *each.target, platform)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			return fmt.Errorf("the bytes of blob %s have another digest", missing[0].Digest)
		}
		marked := images.SetChildrenLabels(store, images.FilterPlatforms(images.ChildrenHandler(store), platform))
		if err := images.Walk(ctx, marked, *each.target); err != nil {
			return err
		}
	}
	return nil
}

// unpack makes the image's layers into snapshots, each checked against the digest that the configuration has of it.
func (n *node) unpack(ctx context.Context, one *image) error {
	record := images.Image{Name: one.Names[0], Target: *one.target}
	return client.NewImageWithPlatform(n.client, record, platform).Unpack(ctx, snapshotter)
}
