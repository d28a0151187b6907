package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// test does what tests on envtest do: install CRDs and webhooks, start a manager, see what becomes of an object, take all of it away.
func test(crds string, webhooks []string) (err error) {
	environment := &envtest.Environment{CRDDirectoryPaths: []string{crds}, ErrorIfCRDPathMissing: true}
	environment.CRDInstallOptions.CleanUpAfterUse = true
	environment.WebhookInstallOptions.Paths = webhooks
	environment.WebhookInstallOptions.LocalServingHost = os.Getenv("POD_IP")
	config, err := environment.Start() // of USE_EXISTING_CLUSTER
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() { err = errors.Join(err, environment.Stop()) }()
	var hooks webhook.Server
	if install := &environment.WebhookInstallOptions; len(webhooks) > 0 {
		hooks = webhook.NewServer(webhook.Options{
			Host: install.LocalServingHost, Port: install.LocalServingPort, CertDir: install.LocalServingCertDir,
		})
	}
	manager, err := newManager(config, hooks, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	ended := make(chan error)
	go func() { ended <- manager.Start(ctx) }()
	defer func() { cancel(); err = errors.Join(err, <-ended) }()
	direct, err := client.New(config, client.Options{Scheme: newScheme()})
	if err != nil {
		return err
	}
	if hooks != nil {
		if err := refused(ctx, direct); err != nil {
			return err
		}
	}
	return followed(ctx, direct, hooks != nil)
}

// followed is an error unless a page's text, or what the webhook puts there, comes to its ConfigMap.
func followed(ctx context.Context, direct client.Client, defaulted bool) error {
	page := &Page{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "of-envtest"}, Spec: PageSpec{Text: "hello"}}
	want := "hello"
	if defaulted {
		page.Spec.Text, want = "", "nothing yet"
	}
	if err := direct.Create(ctx, page); err != nil {
		return err
	}
	made := &corev1.ConfigMap{}
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := direct.Get(ctx, client.ObjectKeyFromObject(page), page)
		return err == nil && page.Status.ConfigMap != "", err
	})
	if err != nil {
		return fmt.Errorf("the page has no status: %w", err)
	}
	if err := direct.Get(ctx, client.ObjectKeyFromObject(page), made); err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", page.Status.ConfigMap, made.Data["text"])
	if made.Data["text"] != want {
		return fmt.Errorf("the ConfigMap says %q", made.Data["text"])
	}
	return direct.Delete(ctx, page)
}

// refused is an error unless the webhook refuses a page, once its server is there.
func refused(ctx context.Context, direct client.Client) error {
	page := &Page{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "refused"}, Spec: PageSpec{Text: "forbidden"}}
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		switch err := direct.Create(ctx, page.DeepCopyObject().(*Page)); {
		case apierrors.IsForbidden(err):
			fmt.Println(err)
			return true, nil
		case apierrors.IsInternalError(err): // nobody listens yet
			return false, nil
		default:
			return false, fmt.Errorf("the page was not refused: %w", err)
		}
	})
}
