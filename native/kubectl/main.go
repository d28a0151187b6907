// Command kubectl is the Kubernetes command line as its own module publishes it, built on its own: the
// program that holds the whole server takes ten times the CPU to print one table.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // registers the credential plug-ins
)

func main() {
	// cli.RunNoErrOutput parses flags too late for what kubectl logs while it builds its command tree.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
