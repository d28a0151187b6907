package components

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
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

// APIHealthy returns when all of the API server's start is done. The controller manager waits for it ten seconds and
// exits then (Kubernetes 1.34), which a busy machine exceeds.
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

// NodeReady returns when the node's condition Ready is True.
func NodeReady(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	one := fields.OneTermEqualSelector(metav1.ObjectNameField, NodeName).String()
	nodes := cache.NewFilteredListWatchFromClient(
		client.CoreV1().RESTClient(), "nodes", v1.NamespaceAll,
		func(options *metav1.ListOptions) { options.FieldSelector = one },
	)
	_, err = watchtools.UntilWithSync(ctx, nodes, &v1.Node{}, nil, isReady)
	if err != nil {
		return fmt.Errorf("waiting for node %s: %w", NodeName, err)
	}
	return nil
}

func isReady(event watch.Event) (bool, error) {
	node, ok := event.Object.(*v1.Node)
	if !ok {
		return false, nil
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status == v1.ConditionTrue, nil
		}
	}
	return false, nil
}
