package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	kubeletpods "k8s.io/kubernetes/pkg/kubelet"

	"sandkube/node/cluster"
	"sandkube/node/settings"
)

// Kubernetes holds the constructed components of Kubernetes, none of them running.
type Kubernetes struct {
	manager   *cobra.Command
	scheduler *scheduleroptions.Options
	apiserver *apiserveroptions.ServerRunOptions
	kubelet   *cobra.Command
	cluster   cluster.Cluster
	settings  settings.Settings
}

// New constructs the components. The order counts (Kubernetes 1.34): the controller
// manager's flags override the default of a feature gate, which panics once
// the gates are on another component's flag set. Their logs go to output.
func New(ctx context.Context, of cluster.Cluster, as settings.Settings, output io.Writer) (*Kubernetes, error) {
	made := &Kubernetes{
		manager:   manager.NewControllerManagerCommand(),
		scheduler: scheduleroptions.NewOptions(),
		apiserver: apiserveroptions.NewServerRunOptions(),
		kubelet:   kubelet.NewKubeletCommand(ctx),
		cluster:   of,
		settings:  as,
	}
	return made, sendLogs(output, as.Verbosity)
}

// NewKubelet constructs the kubelet alone, for a further node. Nothing else sets feature gates there.
func NewKubelet(ctx context.Context, of cluster.Cluster, as settings.Settings, output io.Writer) (*Kubernetes, error) {
	made := &Kubernetes{kubelet: kubelet.NewKubeletCommand(ctx), cluster: of, settings: as}
	return made, sendLogs(output, as.Verbosity)
}

func parse(name string, sets cliflag.NamedFlagSets, arguments []string) error {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(arguments); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// APIServer runs the API server behind a listener until ctx ends.
func (k *Kubernetes) APIServer(ctx context.Context, listener net.Listener) error {
	arguments, err := k.apiserverArguments()
	if err != nil {
		return err
	}
	if err := parse("kube-apiserver", k.apiserver.Flags(), arguments); err != nil {
		return err
	}
	k.apiserver.SecureServing.Listener = listener
	if err := k.apiserver.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	completed, err := k.apiserver.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return utilerrors.NewAggregate(errs)
	}
	return apiserver.Run(ctx, completed)
}

// Scheduler runs the scheduler until ctx ends.
func (k *Kubernetes) Scheduler(ctx context.Context) error {
	if err := parse("kube-scheduler", *k.scheduler.Flags, k.schedulerArguments()); err != nil {
		return err
	}
	config, one, err := scheduler.Setup(ctx, k.scheduler)
	if err != nil {
		return err
	}
	return scheduler.Run(ctx, config, one)
}

// ControllerManager runs the controllers for as long as the process lives.
func (k *Kubernetes) ControllerManager(ctx context.Context) error {
	k.manager.SetArgs(k.managerArguments())
	k.manager.SilenceErrors, k.manager.SilenceUsage = true, true
	return k.manager.ExecuteContext(ctx)
}

// Kubelet runs the kubelet for as long as the process lives. It installs the one handler of
// SIGTERM that a process may have.
func (k *Kubernetes) Kubelet(ctx context.Context) error {
	if err := checkKubelet(k.settings.Kubelet.Configuration); err != nil {
		return err
	}
	k.kubelet.SetArgs(k.kubeletArguments())
	k.kubelet.SilenceErrors, k.kubelet.SilenceUsage = true, true
	err := k.kubelet.ExecuteContext(ctx)
	if err == nil {
		return nil
	}
	if fault, _, found := strings.Cut(err.Error(), ", path: &TypeMeta{"); found { // the whole configuration follows
		return errors.New(fault)
	}
	return err
}

// EndPods ends all pods with their hooks and grace periods, as they would be deleted, and leaves them in the API: the next
// kubelet starts them again. (The kubelet is patched to do so.)
func EndPods(ctx context.Context) error { return kubeletpods.StopPods(ctx) }
