// Command sandkube-node is the first process of a sandbox and the whole of Kubernetes in it.
//
//	sandkube-node [--fix NAME=VALUE ...]           be the node
//	sandkube-node --in-place [...]                 be it in namespaces of a sandbox of others; native/starter starts it
//	sandkube-node doctor [--json] [--fix ...]      print what this sandbox lacks and what would be done about it
//	sandkube-node sweep                            remove cgroups that a node in place left; native/starter starts it
//	sandkube-node api-port SETTINGS                print the API's port; native/starter starts it
//	sandkube-node seed FILE MANIFESTS              make the database that clusters begin with; the recipe `seed` does
//	sandkube-node traffic                          serve what pods send; started by the first form, or by the next
//	sandkube-node member                           be a further node of the cluster; started by the first form
//	sandkube-node relay                            join streams of the host with addresses; sandkube/cluster/relay.py starts it
//	sandkube-node pull                             lead containerd out to registries; sandkube/cluster/pulling.py starts it
//	sandkube-node kubernetes                       the part that runs under the interceptor; started by the first form
//
// As the node, standard output carries the stages (package stages), standard error every component's log
// (package logs). It ends when a component ends, with status 1, or on SIGTERM.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"sandkube/node/boot"
	"sandkube/node/fixes"
	"sandkube/node/logs"
	"sandkube/node/relay"
	"sandkube/node/seed"
	"sandkube/node/traffic"
)

// options of the command line.
type options struct {
	overrides  map[string]string
	inPlace    bool
	kubeconfig int
	outcome    int
	entered    bool
	api        int
	everyCall  bool
	settings   int
	keep       bool
}

func (o options) where() fixes.Where { return fixes.Where{Entered: o.entered, InPlace: o.inPlace} }

// init keeps the first thread for main: package fixes tries things on threads that it gives other namespaces and then
// gives up, and /proc/self shows the namespaces of the first.
func init() { runtime.LockOSThread() }

func main() {
	flags := pflag.NewFlagSet("sandkube-node", pflag.ContinueOnError)
	flags.Usage = func() {} // an error is a sentence; the script and ./do have the help
	var options options
	flags.StringToStringVar(&options.overrides, "fix", nil, "override the choice of a fix: NAME=on, off, auto or a means")
	flags.BoolVar(&options.inPlace, "in-place", false, "be in namespaces that were made for the node in a sandbox of others")
	flags.IntVar(&options.kubeconfig, "kubeconfig-fd", -1, "descriptor that gets the administrator's kubeconfig")
	flags.IntVar(&options.outcome, "outcome-fd", -1, `descriptor that gets a line, "ready" or "failed: …"`)
	flags.BoolVar(&options.entered, "in-userns", false, "this is a user namespace that was made for the node")
	flags.IntVar(&options.api, "api-fd", -1, "descriptor of a listening socket by which the API is reached from outside")
	flags.BoolVar(&options.everyCall, "every-call", false, "have the interceptor stop at every system call, to compare")
	flags.IntVar(&options.settings, "settings-fd", -1, "descriptor of a JSON document with settings (package settings)")
	flags.BoolVar(&options.keep, "keep", false, "have data that stay, in the folder that is mounted on "+boot.Kept)
	asJSON := flags.Bool("json", false, "with doctor: print JSON")
	err := flags.Parse(os.Args[1:])
	if command := flags.Arg(0); err == nil && options.inPlace && command != "" && command != "doctor" && command != interceptedRole {
		err = fmt.Errorf("a node takes no argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandkube-node:", err)
		os.Exit(2)
	}
	switch command := flags.Arg(0); command {
	case "":
		bootNode(options)
	case "doctor":
		if err := doctor(options, *asJSON); err != nil {
			fmt.Fprintln(os.Stderr, "sandkube-node:", err)
			os.Exit(1)
		}
	case "sweep":
		if err := boot.LeaveCgroups(); err != nil && !errors.Is(err, unix.EROFS) { // where they are, the node had mounts of its own
			fmt.Fprintln(os.Stderr, "sandkube-node:", err)
			os.Exit(1)
		}
	case "api-port":
		if err := portOf(flags.Arg(1)); err != nil {
			fmt.Fprintln(os.Stderr, "sandkube-node:", err)
			os.Exit(1)
		}
	case "seed":
		if err := seed.Make(context.Background(), flags.Arg(1), flags.Arg(2), os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "sandkube-node:", err)
			os.Exit(1)
		}
	case traffic.Role:
		sink := logs.New(os.Stderr)
		logs.Catch(sink.Current(traffic.Role))
		err := traffic.Run(context.Background(), os.Stdin, os.Stdout, sink)
		fmt.Fprintln(sink.Component(traffic.Role), "it ended:", err)
		os.Exit(1)
	case relay.Role:
		if err := relay.Run(context.Background(), os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "sandkube-node relay:", err)
			os.Exit(1)
		}
	case relay.PullRole:
		if err := relay.Pull(context.Background(), os.Stdin, relay.Registries); err != nil {
			fmt.Fprintln(os.Stderr, "sandkube-node pull:", err)
			os.Exit(1)
		}
	case memberRole:
		runMember(os.Stdin)
	case interceptedRole:
		runIntercepted(options)
	default:
		fmt.Fprintf(os.Stderr, "sandkube-node: unknown command %q\n", command)
		os.Exit(2)
	}
}

// doctor prints what was found and chosen. Where mounts are refused, it looks from the user namespace in which a node
// would be, if there can be one.
func doctor(options options, asJSON bool) error {
	trials := trialFolder
	if unix.Access(trials, unix.W_OK) != nil {
		trials = os.TempDir()
	}
	facts, plan, err := fixes.Decide(trials, options.overrides, options.where(), true)
	if err != nil {
		return err
	}
	if plan.Used(fixes.MountRight) == fixes.Namespace && !options.entered {
		program, err := os.Executable()
		if err != nil {
			return err
		}
		words := append([]string{fixes.Userns, "--", program, "--in-userns"}, os.Args[1:]...)
		return unix.Exec(fixes.Userns, words, os.Environ())
	}
	if !asJSON {
		return fixes.Print(os.Stdout, facts, plan)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"facts": facts, "fixes": plan})
}
