package components

import (
	"context"
	"fmt"
	"time"

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
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, one.name)
	all := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), one.resource, one.namespace, selector)
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
