package components

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// early names the roles without which a component of the node is turned away when it starts, and comes
// back seconds later.
var early = map[string]bool{
	"system:basic-user":              true,
	"system:discovery":               true,
	"system:kube-controller-manager": true,
	"system:kube-scheduler":          true,
	"system:node-proxier":            true,
	"system:volume-scheduler":        true,
}

// EarlyRoles makes the roles and bindings that the components of the node need. The API server makes
// them too, among all others, but it waits a second before the first (pkg/registry/rbac/rest,
// EnsureRBACPolicy, v1.34) and finds these there then; they are its own definitions.
func EarlyRoles(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, role := range bootstrappolicy.ClusterRoles() {
		if early[role.Name] {
			_, err := client.RbacV1().ClusterRoles().Create(ctx, &role, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("cluster role %s: %w", role.Name, err)
			}
		}
	}
	for _, binding := range bootstrappolicy.ClusterRoleBindings() {
		if early[binding.RoleRef.Name] {
			_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &binding, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("cluster role binding %s: %w", binding.Name, err)
			}
		}
	}
	return nil
}
