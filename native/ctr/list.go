package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listed is an image that pods can be made from: its id, names and digests in repositories, bytes, and whether the kubelet
// never removes it.
type listed struct {
	ID      string   `json:"id"`
	Names   []string `json:"names"`
	Digests []string `json:"digests"`
	Size    uint64   `json:"size"`
	Pinned  bool     `json:"pinned"`
}

func list(ctx context.Context, node *node, _ string) error {
	answer, err := node.images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	found := []listed{}
	for _, each := range answer.Images {
		names, digests := append([]string{}, each.RepoTags...), append([]string{}, each.RepoDigests...)
		found = append(found, listed{each.Id, names, digests, each.Size_, each.Pinned})
	}
	say(map[string]any{"images": found})
	return nil
}

// remove says {} when it is done.
func remove(ctx context.Context, node *node, word string) error {
	if err := node.take(ctx, word); err != nil {
		return err
	}
	say(struct{}{})
	return nil
}

// take takes a name from an image that has several, and removes one that has no other.
func (n *node) take(ctx context.Context, word string) error {
	answer, err := n.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: word}})
	if err != nil {
		return err
	}
	one := answer.Image
	switch {
	case one == nil:
		return fmt.Errorf("there is no image %s", word)
	case one.Pinned:
		return fmt.Errorf("the image %s is a part of the node: no pod starts without it", word)
	}
	users, err := n.users(ctx, one.Id)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("the image %s is used by %s", word, strings.Join(users, ", "))
	}
	name, err := named(wanted{Names: []string{word}})
	if err == nil && len(one.RepoTags) > 1 && slices.Contains(one.RepoTags, name.Names[0]) {
		return n.unname(ctx, name.Names[0], one.Id)
	}
	_, err = n.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: one.Id}})
	return err
}

// users are the pods that have a container of an image which runs or may be started again.
func (n *node) users(ctx context.Context, id string) ([]string, error) {
	containers, err := n.pods.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	sandboxes, err := n.pods.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, each := range sandboxes.Items {
		live[each.Id] = each.State == cri.PodSandboxState_SANDBOX_READY
	}
	var found []string
	for _, each := range containers.Containers {
		ended := each.State == cri.ContainerState_CONTAINER_EXITED && !live[each.PodSandboxId]
		if each.ImageRef == id && !ended {
			labels := each.Labels
			found = append(found, fmt.Sprintf("pod %s/%s", labels["io.kubernetes.pod.namespace"], labels["io.kubernetes.pod.name"]))
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// unname takes one of several names away, and returns when the kubelet does not see it any more.
func (n *node) unname(ctx context.Context, name, id string) error {
	if err := n.client.ImageService().Delete(ctx, name, images.SynchronousDelete()); err != nil {
		return err
	}
	return until(ctx, func() bool {
		found, err := n.id(ctx, name)
		return err == nil && found != id
	})
}
