package components

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sandkube/node/pki"
)

// EarlyAccounts makes what every pod of the default namespace needs: its service account, and the
// trust bundle that is mounted into it. The controller manager makes both in every namespace, some
// seconds after the start; it finds these there and keeps them.
func EarlyAccounts(ctx context.Context, config *rest.Config) error {
	namespace := object{"namespaces", "", metav1.NamespaceDefault, &v1.Namespace{}}
	if err := until(ctx, config, namespace, exists); err != nil { // the seed has it, an API server makes it in a second
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(certificate(pki.CA))
	if err != nil {
		return err
	}
	account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	err = created(ctx, func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Create(ctx, account, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("service account default: %w", err)
	}
	bundle := &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: trustBundle},
		Data:       map[string]string{"ca.crt": string(authority)},
	}
	err = created(ctx, func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, bundle, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("config map %s: %w", trustBundle, err)
	}
	return nil
}

// created makes what may be there already. A server that has just started waits ten seconds for what its admission
// plug-ins need, and refuses then (k8s.io/apiserver, pkg/admission/plugin/namespace/lifecycle); on a slow machine it is
// asked again.
func created(ctx context.Context, create func(context.Context) error) error {
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := create(ctx)
		switch {
		case err == nil, apierrors.IsAlreadyExists(err):
			return true, nil
		case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "not yet ready to handle request"):
			return false, nil
		}
		return false, err
	})
}
