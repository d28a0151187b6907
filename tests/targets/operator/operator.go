package main

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// reconciler has a ConfigMap for each page.
type reconciler struct {
	client.Client
}

// Reconcile makes the ConfigMap of a page what it ought to be, and says in the page's status that it is there.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	page := &Page{}
	if err := r.Get(ctx, request.NamespacedName, page); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: page.Namespace, Name: page.Name}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, made, func() error {
		made.Data = map[string]string{"text": page.Spec.Text}
		return controllerutil.SetControllerReference(page, made, r.Scheme())
	})
	if err != nil || page.Status.ConfigMap == made.Name {
		return ctrl.Result{}, err
	}
	page.Status.ConfigMap = made.Name
	return ctrl.Result{}, r.Status().Update(ctx, page)
}

// rules are the webhooks of pages.
type rules struct{}

// Default gives a page without a text one.
func (rules) Default(_ context.Context, object runtime.Object) error {
	if page := object.(*Page); page.Spec.Text == "" {
		page.Spec.Text = "nothing yet"
	}
	return nil
}

func check(object runtime.Object) (admission.Warnings, error) {
	if text := object.(*Page).Spec.Text; strings.Contains(text, "forbidden") {
		return nil, fmt.Errorf("the text %q is forbidden", text)
	}
	return admission.Warnings{"pages are for tests"}, nil
}

// ValidateCreate refuses what is forbidden.
func (rules) ValidateCreate(_ context.Context, object runtime.Object) (admission.Warnings, error) {
	return check(object)
}

// ValidateUpdate refuses what is forbidden.
func (rules) ValidateUpdate(_ context.Context, _, object runtime.Object) (admission.Warnings, error) {
	return check(object)
}

// ValidateDelete refuses nothing.
func (rules) ValidateDelete(context.Context, runtime.Object) (admission.Warnings, error) {
	return nil, nil
}

// newManager has the reconciler and, with a server for them, the webhooks. One with an address for probes leads before it works.
func newManager(config *rest.Config, hooks webhook.Server, probes string) (ctrl.Manager, error) {
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 newScheme(),
		Metrics:                server.Options{BindAddress: "0"},
		HealthProbeBindAddress: probes,
		LeaderElection:         probes != "",
		LeaderElectionID:       "pages",
		WebhookServer:          hooks,
	})
	if err != nil {
		return nil, err
	}
	built := ctrl.NewControllerManagedBy(manager).For(&Page{}).Owns(&corev1.ConfigMap{})
	if err := built.Complete(&reconciler{manager.GetClient()}); err != nil || hooks == nil {
		return manager, err
	}
	return manager, ctrl.NewWebhookManagedBy(manager).For(&Page{}).WithDefaulter(rules{}).WithValidator(rules{}).Complete()
}
