package components

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// APIAnswers returns when the API server answers /livez/ping. The server tells nobody that it
// listens, so it is asked again after each refusal.
func APIAnswers(ctx context.Context, config *rest.Config) error {
	return ask(ctx, config, "/livez/ping", 20*time.Millisecond)
}

// APIHealthy returns when all of the API server's start is done.
func APIHealthy(ctx context.Context, config *rest.Config) error {
	return ask(ctx, config, "/healthz", 200*time.Millisecond)
}

func ask(ctx context.Context, config *rest.Config, path string, period time.Duration) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, period, true, func(ctx context.Context) (bool, error) {
		return client.RESTClient().Get().AbsPath(path).Do(ctx).Error() == nil, nil
	})
}

// NodeReady returns when the condition Ready of a node is True, and is not that of an earlier boot.
func NodeReady(ctx context.Context, config *rest.Config, name string, earlier Earlier) error {
	return until(ctx, config, object{"nodes", "", name, &v1.Node{}}, earlier.isReady)
}

// APIServed returns when default/kubernetes, by which pods reach the API, is a Service with an endpoint. A container that
// is made before the Service has no KUBERNETES_SERVICE_HOST, ever.
func APIServed(ctx context.Context, config *rest.Config) error {
	err := until(ctx, config, object{"services", metav1.NamespaceDefault, "kubernetes", &v1.Service{}}, exists)
	if err != nil {
		return err
	}
	return until(ctx, config, object{"endpoints", metav1.NamespaceDefault, "kubernetes", &v1.Endpoints{}}, hasAddress) //nolint:staticcheck // as the API server, which makes it
}

// ControllersRun returns when the controllers do: all are started together, and one of them makes a service account in
// each namespace. After an earlier boot, it is there; the trust bundle was taken away.
func ControllersRun(ctx context.Context, config *rest.Config, earlier Earlier) error {
	if earlier.booted {
		return until(ctx, config, object{"configmaps", metav1.NamespacePublic, trustBundle, &v1.ConfigMap{}}, exists)
	}
	return until(ctx, config, object{"serviceaccounts", metav1.NamespacePublic, "default", &v1.ServiceAccount{}}, exists)
}

// How long whoever starts a node has to start pods before the node's own, and for how long at most those wait for them.
const (
	headstart = time.Second
	yielded   = 20 * time.Second
)

// OthersFirst returns when no pod waits to be started, a while after it was called, and in the end all the same: the first pods
// of a cluster are its user's.
func OthersFirst(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, yielded)
	defer cancel()
	waiting := metav1.ListOptions{FieldSelector: "status.phase=" + string(v1.PodPending), Limit: 1}
	err = wait.PollUntilContextCancel(ctx, headstart, false, func(ctx context.Context) (bool, error) {
		found, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, waiting)
		return err == nil && len(found.Items) == 0, nil
	})
	if wait.Interrupted(err) {
		return nil
	}
	return err
}

// Available returns when a Deployment or a DaemonSet has as many pods that are ready as it wants, in the form that it has now.
func Available(ctx context.Context, config *rest.Config, kind, namespace, name string) error {
	if kind == "DaemonSet" {
		return until(ctx, config, object{"daemonsets", namespace, name, &appsv1.DaemonSet{}}, onEachNode)
	}
	return until(ctx, config, object{"deployments", namespace, name, &appsv1.Deployment{}}, available)
}

func available(event watch.Event) (bool, error) {
	one, ok := event.Object.(*appsv1.Deployment)
	if !ok || one.Status.ObservedGeneration < one.Generation {
		return false, nil
	}
	for _, condition := range one.Status.Conditions {
		if condition.Type == appsv1.DeploymentAvailable {
			return condition.Status == v1.ConditionTrue, nil
		}
	}
	return false, nil
}

func onEachNode(event watch.Event) (bool, error) {
	one, ok := event.Object.(*appsv1.DaemonSet)
	if !ok || one.Status.ObservedGeneration < one.Generation {
		return false, nil
	}
	wanted := one.Status.DesiredNumberScheduled
	return wanted > 0 && one.Status.UpdatedNumberScheduled == wanted && one.Status.NumberAvailable == wanted, nil
}

// object is one of the API, and how it is read.
type object struct {
	resource, namespace, name string
	example                   runtime.Object
}

// until returns when a condition holds for an object.
func until(ctx context.Context, config *rest.Config, one object, condition watchtools.ConditionFunc) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	reader := client.CoreV1().RESTClient()
	switch one.example.(type) {
	case *appsv1.Deployment, *appsv1.DaemonSet:
		reader = client.AppsV1().RESTClient()
	}
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, one.name)
	all := cache.NewListWatchFromClient(reader, one.resource, one.namespace, selector)
	if _, err := watchtools.UntilWithSync(ctx, all, one.example, nil, condition); err != nil {
		return fmt.Errorf("waiting for %s %s: %w", one.resource, one.name, err)
	}
	return nil
}

func exists(event watch.Event) (bool, error) { return event.Type != watch.Deleted, nil }

func hasAddress(event watch.Event) (bool, error) {
	endpoints, ok := event.Object.(*v1.Endpoints) //nolint:staticcheck // see above
	return ok && len(endpoints.Subsets) > 0 && len(endpoints.Subsets[0].Addresses) > 0, nil
}

func (e Earlier) isReady(event watch.Event) (bool, error) {
	node, ok := event.Object.(*v1.Node)
	if !ok {
		return false, nil
	}
	if at := heartbeatOf(node); e.booted && at.Equal(&e.heartbeat) {
		return false, nil
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status == v1.ConditionTrue, nil
		}
	}
	return false, nil
}
