// Command e2e is Kubernetes' own suite, as its test/e2e/e2e_test.go starts it, built as an ordinary program: a
// module's packages can be built from outside of it, its test files cannot.
//
// It takes all flags of e2e.test, and two of its own: --told, a file that gets a JSON line for each spec as it ends,
// and --left-out, a file with a spec's full name a line, of specs that are not run.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	conformancetestdata "k8s.io/kubernetes/test/conformance/testdata"
	"k8s.io/kubernetes/test/e2e"
	"k8s.io/kubernetes/test/e2e/framework"
	"k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"
	e2etestingmanifests "k8s.io/kubernetes/test/e2e/testing-manifests"
	testfixtures "k8s.io/kubernetes/test/fixtures"

	_ "k8s.io/kubernetes/test/e2e/feature" // defines and freezes constants

	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/architecture"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/autoscaling"
	_ "k8s.io/kubernetes/test/e2e/cloud"
	_ "k8s.io/kubernetes/test/e2e/common"
	_ "k8s.io/kubernetes/test/e2e/dra"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/lifecycle"
	_ "k8s.io/kubernetes/test/e2e/lifecycle/bootstrap"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"
	_ "k8s.io/kubernetes/test/e2e/storage/csimock"
	_ "k8s.io/kubernetes/test/e2e/storage/external"
	_ "k8s.io/kubernetes/test/e2e/windows"

	_ "k8s.io/kubernetes/test/e2e/framework/debug/init" // these configure the framework
	_ "k8s.io/kubernetes/test/e2e/framework/metrics/init"
	_ "k8s.io/kubernetes/test/e2e/framework/node/init"
	_ "k8s.io/kubernetes/test/utils/format"
)

// suite is what RunE2ETests calls it, and what Ginkgo puts in front of a spec's name before it matches that.
const suite = "Kubernetes e2e suite"

func main() {
	testing.Init() // flags of go test: the ginkgo command gives some of them
	tells := flag.String("told", "", "file that gets a line of JSON for each spec that ends")
	leftOut := flag.String("left-out", "", "file with the full names of specs that are not run, one a line")
	config.CopyFlags(config.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	if flag.NArg() > 0 {
		die(fmt.Errorf("unknown arguments: %v", flag.Args()))
	}
	if err := leave(*leftOut); err != nil {
		die(err)
	}
	testfiles.AddFileSource(e2etestingmanifests.GetE2ETestingManifestsFS())
	testfiles.AddFileSource(testfixtures.GetTestFixturesFS())
	testfiles.AddFileSource(conformancetestdata.GetConformanceTestdataFS())
	framework.AfterReadingAllFlags(&framework.TestContext)
	if *tells != "" {
		file, err := os.OpenFile(*tells, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			die(err)
		}
		tellTo(file)
	}
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestE2E", F: e2e.RunE2ETests}}, nil, nil)
}

func die(err error) {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	os.Exit(1)
}

// leave adds the specs that a file names to those that Ginkgo skips: it takes regular expressions.
func leave(file string) error {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var names []string
	for _, each := range strings.Split(string(data), "\n") {
		if each != "" {
			names = append(names, regexp.QuoteMeta(each))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return flag.Set("ginkgo.skip", "^"+suite+" ("+strings.Join(names, "|")+")$")
}
