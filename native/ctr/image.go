package main

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// managed is the label by which the CRI plug-in knows its images.
var managed = map[string]string{"io.cri-containerd.image": "managed"}

const (
	look  = 10 * time.Millisecond
	delay = 30 * time.Second
)

// image is one that is loaded: the digest of its configuration, which the kubelet takes for its id, and its full names.
type image struct {
	Config digest.Digest `json:"id"`
	Names  []string      `json:"names"`

	target *ocispec.Descriptor
}

// named gives an image the names that the kubelet looks for: `busybox` is docker.io/library/busybox:latest.
func named(one wanted) (*image, error) {
	made := &image{Config: one.Config}
	for _, each := range one.Names {
		name, err := reference.ParseDockerRef(each)
		if err != nil {
			return nil, fmt.Errorf("%q is no name of an image: %w", each, err)
		}
		made.Names = append(made.Names, name.String())
	}
	if len(made.Names) == 0 {
		return nil, fmt.Errorf("the image %s has no name", one.Config)
	}
	return made, nil
}

// id is the image that a name or the beginning of an id leads to, as the kubelet sees it; "" for none.
func (n *node) id(ctx context.Context, name string) (string, error) {
	answer, err := n.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err != nil || answer.Image == nil {
		return "", err
	}
	return answer.Image.Id, nil
}

// has says whether the kubelet sees all images by all names.
func (n *node) has(ctx context.Context, all []*image) bool {
	for _, each := range all {
		for _, name := range each.Names {
			if id, err := n.id(ctx, name); err != nil || id != each.Config.String() {
				return false
			}
		}
	}
	return true
}

// await returns when the kubelet sees all images.
func (n *node) await(ctx context.Context, all []*image) error {
	return until(ctx, func() bool { return n.has(ctx, all) })
}

// until returns when containerd's CRI plug-in knows what containerd has done: it learns of that by events.
func until(ctx context.Context, knows func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, delay)
	defer cancel()
	for ; !knows(); time.Sleep(look) {
		if ctx.Err() != nil {
			return fmt.Errorf("containerd has done it, and after %s its CRI plug-in does not know", delay)
		}
	}
	return nil
}

// name makes the references that the CRI plug-in makes for a pulled image: its id, each name, and its digest in the name's
// repository.
func (n *node) name(ctx context.Context, one *image) error {
	references := []string{one.Config.String()}
	for _, each := range one.Names {
		name, err := reference.ParseNormalizedNamed(each)
		if err != nil {
			return err
		}
		references = append(references, each)
		if _, canonical := name.(reference.Canonical); !canonical {
			references = append(references, name.Name()+"@"+one.target.Digest.String())
		}
	}
	service := n.client.ImageService()
	for _, each := range references {
		record := images.Image{Name: each, Target: *one.target, Labels: managed}
		_, err := service.Create(ctx, record)
		if errdefs.IsAlreadyExists(err) {
			_, err = service.Update(ctx, record, "target", "labels")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
