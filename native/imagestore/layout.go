package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layerTypes are what layers are called, packed or not, by the specification and by docker.
var layerTypes = []string{
	ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
	images.MediaTypeDockerSchema2Layer, images.MediaTypeDockerSchema2LayerGzip, images.MediaTypeDockerSchema2LayerZstd,
}

// layout is one image of an OCI image layout.
type layout struct {
	name       string
	folder     string
	descriptor ocispec.Descriptor // of the manifest
	manifest   ocispec.Manifest
	config     ocispec.Image
}

func open(name, folder string) (layout, error) {
	found := layout{name: name, folder: folder}
	data, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if err != nil {
		return found, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return found, fmt.Errorf("index.json: %w", err)
	}
	if len(index.Manifests) != 1 {
		return found, fmt.Errorf("index.json: expected one image, found %d", len(index.Manifests))
	}
	entry := index.Manifests[0]
	found.descriptor = ocispec.Descriptor{MediaType: entry.MediaType, Digest: entry.Digest, Size: entry.Size}
	if err := found.read(entry.Digest, &found.manifest); err != nil {
		return found, err
	}
	if err := found.read(found.manifest.Config.Digest, &found.config); err != nil {
		return found, err
	}
	if len(found.manifest.Layers) != len(found.config.RootFS.DiffIDs) {
		return found, fmt.Errorf("manifest has %d layers, config %d", len(found.manifest.Layers), len(found.config.RootFS.DiffIDs))
	}
	for _, layer := range found.manifest.Layers {
		if !slices.Contains(layerTypes, layer.MediaType) {
			return found, fmt.Errorf("layer %s: %q is no layer of files", layer.Digest, layer.MediaType)
		}
	}
	return found, nil
}

func (l layout) path(id digest.Digest) string {
	return filepath.Join(l.folder, "blobs", id.Algorithm().String(), id.Encoded())
}

// read decodes a JSON blob, checked against its digest.
func (l layout) read(id digest.Digest, into any) error {
	if err := id.Validate(); err != nil {
		return err
	}
	file, err := os.Open(l.path(id))
	if err != nil {
		return err
	}
	defer file.Close()
	verifier := id.Verifier()
	data, err := io.ReadAll(io.TeeReader(file, verifier))
	if err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("blob %s: its bytes have another digest", id)
	}
	return json.Unmarshal(data, into)
}

// references are the names that the CRI plug-in gives a pulled image: the tag, the digest in its
// repository, and the image id, which is the digest of the configuration.
func (l layout) references() ([]string, error) {
	named, err := reference.ParseDockerRef(l.name)
	if err != nil {
		return nil, err
	}
	if named.String() != l.name {
		return nil, fmt.Errorf("the kubelet would look for this image as %s; give it that name", named)
	}
	if _, tagged := named.(reference.NamedTagged); !tagged {
		return nil, fmt.Errorf("the name has no tag")
	}
	byDigest := named.Name() + "@" + l.descriptor.Digest.String()
	return []string{l.name, byDigest, l.manifest.Config.Digest.String()}, nil
}
