// Package manifests deploys the objects of a folder: every *.yaml file in it,
// in the order of their names, by server-side apply.
package manifests

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/klog/v2"
)

const (
	owner = "sandkube-node"
	// An object may be refused until the API server is all up, which takes a slow machine many seconds.
	period   = 100 * time.Millisecond
	patience = 2 * time.Minute
	// A kind may be defined, and a namespace made, by an object just before; and what judges objects may have to start.
	settling = 20 * time.Second
)

// Set is a file of objects.
type Set struct {
	Name    string
	Objects []*unstructured.Unstructured
}

// Read returns every *.yaml file of folder; none if there is no such folder.
func Read(folder string) ([]Set, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var found []Set
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		set, err := Parse(filepath.Base(path), data)
		if err != nil {
			return nil, err
		}
		found = append(found, set)
	}
	return found, nil
}

// Parse reads the objects of a file, YAML or JSON.
func Parse(name string, data []byte) (Set, error) {
	objects, err := decode(data)
	if err != nil {
		return Set{}, fmt.Errorf("%s: %w", name, err)
	}
	return Set{name, objects}, nil
}

func decode(data []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var found []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) == 0 {
			continue
		}
		if object.GetKind() == "" || object.GetName() == "" {
			return nil, errors.New("an object without kind or name")
		}
		found = append(found, object)
	}
}

// Deploy applies the objects in order. Each is tried again while the API is still coming up; one that is refused for what it is
// is not, and one that is refused for what there is not is for a while.
func Deploy(ctx context.Context, config *rest.Config, sets []Set) error {
	return deploy(ctx, config, sets, apply)
}

// Add is Deploy for objects that are not there; those that are stay as they are.
func Add(ctx context.Context, config *rest.Config, sets []Set) error {
	return deploy(ctx, config, sets, func(ctx context.Context, resource dynamic.ResourceInterface, object *unstructured.Unstructured) error {
		if _, err := resource.Get(ctx, object.GetName(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		return apply(ctx, resource, object)
	})
}

func deploy(
	ctx context.Context, config *rest.Config, sets []Set,
	try func(context.Context, dynamic.ResourceInterface, *unstructured.Unstructured) error,
) error {
	if len(sets) == 0 {
		return nil
	}
	client, mapper, err := clients(config)
	if err != nil {
		return err
	}
	for _, set := range sets {
		for _, object := range set.Objects {
			err := insist(ctx, func(ctx context.Context) error {
				resource, err := resourceOf(client, mapper, object)
				if err != nil {
					return err
				}
				return try(ctx, resource, object)
			})
			if err != nil {
				return fmt.Errorf("%s: %s %s: %w", set.Name, object.GetKind(), object.GetName(), err)
			}
			klog.InfoS("Deployed", "kind", object.GetKind(), "object", klog.KObj(object))
		}
	}
	return nil
}

// Remove deletes the objects that Deploy applied, if they are there, in the order opposite to theirs. What others made is left.
func Remove(ctx context.Context, config *rest.Config, set Set) error {
	client, mapper, err := clients(config)
	if err != nil {
		return err
	}
	var faults []error
	for _, object := range slices.Backward(set.Objects) {
		if err := remove(ctx, client, mapper, object); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s %s: %w", set.Name, object.GetKind(), object.GetName(), err))
		}
	}
	return errors.Join(faults...)
}

func remove(
	ctx context.Context, client dynamic.Interface, mapper *restmapper.DeferredDiscoveryRESTMapper, object *unstructured.Unstructured,
) error {
	resource, err := resourceOf(client, mapper, object)
	if meta.IsNoMatchError(err) {
		return nil // nor is there any object of the kind
	}
	if err != nil {
		return err
	}
	found, err := resource.Get(ctx, object.GetName(), metav1.GetOptions{})
	if err == nil && slices.ContainsFunc(found.GetManagedFields(), func(one metav1.ManagedFieldsEntry) bool { return one.Manager == owner }) {
		background := metav1.DeletePropagationBackground
		err = resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// insist tries something until it is done, as long as that makes sense. It returns what was said last.
func insist(ctx context.Context, try func(context.Context) error) error {
	var last error
	var judged time.Time // when the API server refused it for the first time
	err := wait.PollUntilContextTimeout(ctx, period, patience, true, func(ctx context.Context) (bool, error) {
		last = try(ctx)
		switch {
		case last == nil:
			return true, nil
		case apierrors.IsInvalid(last) || apierrors.IsBadRequest(last):
			return false, last
		case !meta.IsNoMatchError(last) && !apierrors.IsForbidden(last) && !apierrors.IsNotFound(last):
			judged = time.Time{}
		case judged.IsZero():
			judged = time.Now()
		case time.Since(judged) > settling:
			return false, last
		}
		return false, nil
	})
	if last != nil {
		return last
	}
	return err
}

func apply(ctx context.Context, resource dynamic.ResourceInterface, object *unstructured.Unstructured) error {
	data, err := object.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = resource.Patch(ctx, object.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: owner, Force: &force})
	return err
}

// clients are what objects of any kind are read and written with.
func clients(config *rest.Config) (dynamic.Interface, *restmapper.DeferredDiscoveryRESTMapper, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	return client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found)), nil
}

// resourceOf is where objects of this one's kind and namespace are.
func resourceOf(
	client dynamic.Interface, mapper *restmapper.DeferredDiscoveryRESTMapper, object *unstructured.Unstructured,
) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		mapper.Reset() // the group may be served by now
		return nil, err
	}
	resource := client.Resource(mapping.Resource)
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return resource, nil
	}
	return resource.Namespace(cmp.Or(object.GetNamespace(), metav1.NamespaceDefault)), nil
}
