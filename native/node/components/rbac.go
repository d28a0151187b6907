package components

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// early names the roles without which a component of the node, or a controller that pods wait for,
// is turned away when it starts and comes back seconds later.
var early = map[string]bool{
	"system:basic-user":                            true,
	"system:discovery":                             true,
	"system:kube-controller-manager":               true,
	"system:kube-scheduler":                        true,
	"system:node-proxier":                          true,
	"system:volume-scheduler":                      true,
	"system:controller:disruption-controller":      true,
	"system:controller:endpoint-controller":        true,
	"system:controller:endpointslice-controller":   true,
	"system:controller:namespace-controller":       true,
	"system:controller:node-controller":            true,
	"system:controller:root-ca-cert-publisher":     true,
	"system:controller:service-account-controller": true,
	"system:controller:deployment-controller":      true,
	"system:controller:replicaset-controller":      true,
	"system:controller:daemon-set-controller":      true,
	"system:controller:job-controller":             true,
	"system:controller:statefulset-controller":     true,
}

// EarlyRoles makes the roles and bindings that the components of the node need. The API server makes
// them too, among all others, but it waits a second before the first (pkg/registry/rbac/rest,
// EnsureRBACPolicy, v1.34) and finds these there then; they are its own definitions.
func EarlyRoles(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	roles := append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...)
	for _, role := range roles {
		if early[role.Name] {
			_, err := client.RbacV1().ClusterRoles().Create(ctx, &role, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("cluster role %s: %w", role.Name, err)
			}
		}
	}
	bindings := append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...)
	for _, binding := range bindings {
		if isEarly(binding) {
			_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &binding, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("cluster role binding %s: %w", binding.Name, err)
			}
		}
	}
	return nil
}

func isEarly(binding rbacv1.ClusterRoleBinding) bool { return early[binding.RoleRef.Name] }
