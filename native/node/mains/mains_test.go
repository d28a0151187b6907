package mains

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// known is what the main packages, component-base's cli.Run and the commands' own functions call, and what became of it here.
// One that is missing is something new in Kubernetes: somebody must look at it.
var known = map[string]string{
	"app.NewAPIServerCommand":         "components.APIServer does what its RunE does: the command takes SIGTERM, which is the kubelet's",
	"app.NewControllerManagerCommand": "components.New",
	"app.NewSchedulerCommand":         "components.Scheduler does what its RunE does",
	"app.NewKubeletCommand":           "components.New",
	"cli.Run":                         "the rows below",
	"context.Background":              "the node's own context",
	"os.Exit":                         "the end of a component is the node's",

	"logs.FlushLogs":                 "nothing is held back: each line is written at once",
	"cmd.SetGlobalNormalizationFunc": "flags are given with hyphens",
	"cmd.SetFlagErrorFunc":           "no usage is printed: SilenceErrors, and an error is a component's end",
	"logs.AddFlags":                  "the flags of logging are in each component's own set",
	"cmd.PersistentFlags":            "as above",
	"logs.InitLogs":                  "logs.Catch sends what klog and log write to the node's log",
	"pre":                            "a command's own PersistentPreRun, kept",
	"cmd.ExecuteContext":             "components.ControllerManager, components.Kubelet",
	"cmd.Execute":                    "as above",

	"Set":                             "components.APIServer; the manager's command; the scheduler's has the same registry",
	"rest.SetDefaultWarningHandler":   "one for the process: the manager's command sets it",
	"rest.NoWarnings":                 "as above",
	"verflag.PrintAndExitIfRequested": "there is no --version",
	"cmd.Flags":                       "parsed by components.parse",
	"logsapi.ValidateAndApply":        "components.sendLogs, once for all",
	"cliflag.PrintFlags":              "flags are in arguments.go",
	"s.Complete":                      "components.APIServer",
	"completedOptions.Validate":       "components.APIServer",
	"utilerrors.NewAggregate":         "components.APIServer",
	"AddMetrics":                      "one registry for the process: the manager's command adds it",
	"Run":                             "components.APIServer",
	"runCommand":                      "components.Scheduler: the rows below",
	"FeatureGateFor":                  "gates are the API server's, set before any other component starts",
	"fmt.Fprintf":                     "an error is a component's end",
	"context.WithCancel":              "the node's own context",
	"cancel":                          "as above",
	"server.SetupSignalHandler":       "a process may have one, and it is the kubelet's",
	"Setup":                           "components.Scheduler",
	"len":                             "",
}

// source is the folder of a module in the module cache, of the version in go.mod.
func source(t *testing.T, module string) string {
	t.Helper()
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(regexp.QuoteMeta(module)+`(?: =>.*)? (v\S+)\n`).FindAllStringSubmatch(string(text), -1)
	if len(found) == 0 {
		t.Fatalf("go.mod names no %s", module)
	}
	cache := os.Getenv("GOMODCACHE")
	if cache == "" {
		said, err := exec.Command("go", "env", "GOMODCACHE").Output()
		if err != nil {
			t.Fatal(err)
		}
		cache = strings.TrimSpace(string(said))
	}
	return filepath.Join(cache, module+"@"+found[len(found)-1][1]) // a replacement comes behind what it replaces
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// effects are the blank imports of a file.
func effects(file *ast.File) []string {
	var found []string
	for _, each := range file.Imports {
		if path, err := strconv.Unquote(each.Path.Value); err == nil && each.Name != nil && each.Name.Name == "_" {
			found = append(found, path)
		}
	}
	return found
}

// calls are those below a node, named as they are written: the last word only where something longer is called upon.
func calls(below ast.Node) []string {
	var found []string
	ast.Inspect(below, func(node ast.Node) bool {
		switch each := node.(type) {
		case *ast.CallExpr:
			switch function := each.Fun.(type) {
			case *ast.Ident:
				found = append(found, function.Name)
			case *ast.SelectorExpr:
				name := function.Sel.Name
				if of, ok := function.X.(*ast.Ident); ok {
					name = of.Name + "." + name
				}
				found = append(found, name)
			}
		case *ast.CompositeLit:
			if kind, ok := each.Type.(*ast.SelectorExpr); ok {
				if name := fmt.Sprint(kind.X, ".", kind.Sel.Name); name == "rest.NoWarnings" {
					found = append(found, name)
				}
			}
		}
		return true
	})
	return found
}

func check(t *testing.T, where string, found []string) {
	t.Helper()
	for _, each := range found {
		last := each[strings.LastIndex(each, ".")+1:]
		if _, ok := known[each]; !ok {
			if _, ok = known[last]; !ok {
				t.Errorf("%s calls %s, of which nothing is known here", where, each)
			}
		}
	}
}

func TestMainPackages(t *testing.T) {
	kubernetes := source(t, "k8s.io/kubernetes")
	ours := effects(parse(t, "mains.go"))
	for name, file := range map[string]string{
		"kube-apiserver": "apiserver.go", "kube-controller-manager": "controller-manager.go", "kube-scheduler": "scheduler.go", "kubelet": "kubelet.go",
	} {
		main := parse(t, filepath.Join(kubernetes, "cmd", name, file))
		for _, each := range effects(main) {
			if !slices.Contains(ours, each) {
				t.Errorf("%s imports %s, we do not", name, each)
			}
		}
		check(t, name, calls(main))
		others, err := filepath.Glob(filepath.Join(kubernetes, "cmd", name, "*.go"))
		if err != nil || len(others) != 1 {
			t.Errorf("%s has more files than one: %v, %v", name, others, err)
		}
	}
}

// What is run instead of a command here is all that the command's own function does.
func TestWhatCommandsDo(t *testing.T) {
	check(t, "cli.Run", calls(function(t, filepath.Join(source(t, "k8s.io/component-base"), "cli/run.go"), "run")))
	programs := filepath.Join(source(t, "k8s.io/kubernetes"), "cmd")
	server, scheduler := filepath.Join(programs, "kube-apiserver/app/server.go"), filepath.Join(programs, "kube-scheduler/app/server.go")
	for _, field := range []string{"PersistentPreRunE", "RunE"} {
		check(t, "kube-apiserver's "+field, calls(value(t, function(t, server, "NewAPIServerCommand"), field)))
		check(t, "kube-scheduler's "+field, calls(value(t, function(t, scheduler, "NewSchedulerCommand"), field)))
	}
	check(t, "kube-scheduler's runCommand", calls(function(t, scheduler, "runCommand")))
}

func function(t *testing.T, path, name string) ast.Node {
	t.Helper()
	for _, each := range parse(t, path).Decls {
		if found, ok := each.(*ast.FuncDecl); ok && found.Name.Name == name {
			return found.Body
		}
	}
	t.Fatalf("%s has no function %s", path, name)
	return nil
}

func value(t *testing.T, below ast.Node, field string) ast.Node {
	t.Helper()
	var found ast.Node
	ast.Inspect(below, func(node ast.Node) bool {
		if pair, ok := node.(*ast.KeyValueExpr); ok {
			if name, ok := pair.Key.(*ast.Ident); ok && name.Name == field {
				found = pair.Value
			}
		}
		return true
	})
	if found == nil {
		t.Fatalf("there is no %s", field)
	}
	return found
}

// The node's file system has no zone files.
func TestTimeZones(t *testing.T) {
	t.Setenv("ZONEINFO", "/nowhere")
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Asia/Tokyo"} {
		if _, err := time.LoadLocation(name); err != nil {
			t.Error(err)
		}
	}
}
