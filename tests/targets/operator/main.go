// Command operator looks after pages. `operator run CERTIFICATES` does so in a pod, with webhooks, whose certificate is in that folder.
// `operator envtest CRDS [WEBHOOKS]` is a test on controller-runtime's envtest of the same, against the cluster that KUBECONFIG, or the
// pod that it runs in, leads to; CRDS and WEBHOOKS are a folder and a file with what envtest installs.
package main

import (
	"fmt"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

func run(certificates string) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := newManager(config, webhook.NewServer(webhook.Options{CertDir: certificates}), ":8081")
	if err != nil {
		return err
	}
	if err := manager.AddReadyzCheck("webhooks", manager.GetWebhookServer().StartedChecker()); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

func main() {
	ctrl.SetLogger(zap.New())
	err := fmt.Errorf("say run CERTIFICATES, or envtest CRDS [WEBHOOKS]")
	switch words := os.Args[1:]; {
	case len(words) == 2 && words[0] == "run":
		err = run(words[1])
	case len(words) >= 2 && words[0] == "envtest":
		err = test(words[1], words[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
