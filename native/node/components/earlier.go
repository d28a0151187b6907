package components

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sandkube/node/files"
)

// trustBundle is a config map that one of the controllers makes in each namespace.
const trustBundle = "kube-root-ca.crt"

// Claim sees to it that this version of Kubernetes may go on from the one that wrote a folder's data last, and notes that it
// does: any of the same minor version, or the minor version after it (kubernetes.io, version skew policy).
func Claim(folder, ours string) error {
	path := filepath.Join(folder, "version")
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if err := mayFollow(strings.TrimSpace(string(data)), ours); err != nil {
			return err
		}
	}
	if string(data) == ours+"\n" {
		return nil
	}
	return files.Replace(path, []byte(ours+"\n"), 0o600)
}

func mayFollow(theirs, ours string) error {
	old, err := version.ParseSemantic(theirs)
	if err != nil {
		return fmt.Errorf("what wrote the data cannot be told: %w", err)
	}
	own, err := version.ParseSemantic(ours)
	if err != nil {
		return err
	}
	switch {
	case old.Major() != own.Major() || old.Minor() > own.Minor():
		return fmt.Errorf("its data were written by Kubernetes %s, which %s cannot go on from: start it with that one or a newer one", theirs, ours)
	case own.Minor() > old.Minor()+1:
		return fmt.Errorf(
			"its data were written by Kubernetes %s, and an upgrade is one minor version at a time: start it with v%d.%d before %s",
			theirs, old.Major(), old.Minor()+1, ours,
		)
	}
	return nil
}

// Earlier is what the datastore says of a boot before this one.
type Earlier struct {
	booted    bool
	heartbeat metav1.Time // of the node
}

// History finds that out by the nodes of some names, the first of them first, and takes away what would look as if this boot had made it:
// no pod is ready, as when its node is not (the node lifecycle controller does the same), and one of the controllers' objects is gone.
func History(ctx context.Context, config *rest.Config, names ...string) ([]Earlier, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	found := make([]Earlier, len(names))
	for at, name := range names {
		if found[at], err = history(ctx, client, name); err != nil {
			return nil, err
		}
	}
	if !found[0].booted {
		return found, nil
	}
	err = client.CoreV1().ConfigMaps(metav1.NamespacePublic).Delete(ctx, trustBundle, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	return found, nil
}

func history(ctx context.Context, client kubernetes.Interface, name string) (Earlier, error) {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Earlier{}, nil
	}
	if err != nil {
		return Earlier{}, err
	}
	return Earlier{true, heartbeatOf(node)}, unreadyPods(ctx, client, name)
}

// unreadyPods takes the pods of an earlier boot for not ready, until the kubelet says otherwise: nobody is to be sent to an
// address that they had.
func unreadyPods(ctx context.Context, client kubernetes.Interface, name string) error {
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if !unready(&pod.Status) {
			continue
		}
		_, err := client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, &pod, metav1.UpdateOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// unready changes a pod's status; false if it was not ready before.
func unready(status *v1.PodStatus) bool {
	for at := range status.Conditions {
		one := &status.Conditions[at]
		if one.Type == v1.PodReady && one.Status == v1.ConditionTrue {
			one.Status, one.LastTransitionTime = v1.ConditionFalse, metav1.Now()
			return true
		}
	}
	return false
}

// heartbeatOf is when the kubelet reported last that it is ready, or is not; zero if it never did.
func heartbeatOf(node *v1.Node) metav1.Time {
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.LastHeartbeatTime
		}
	}
	return metav1.Time{}
}
