package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
	"sandkube/node/components"
	"sandkube/node/manifests"
	"sandkube/node/settings"
)

const (
	givenFile = "/run/sandkube/settings.json" // for the role kubernetes
	ownFolder = "/run/sandkube/manifests"     // filled in by boot.Configure
)

// given is what the user wants, and the cluster that it makes.
type given struct {
	settings settings.Settings
	cluster  cluster.Cluster
}

func newGiven(as settings.Settings) given { return given{as, as.Of(cluster.Default)} }

// readGiven reads the settings from the descriptor that the options name, if they do.
func readGiven(options options) (given, error) {
	var found settings.Settings
	if options.settings >= 0 {
		file := os.NewFile(uintptr(options.settings), "settings")
		unix.CloseOnExec(options.settings)
		var err error
		if found, err = settings.Read(file); err != nil {
			return given{}, err
		}
	}
	return newGiven(found), nil
}

// save writes what was given for the other process, and its files.
func (g given) save() error {
	data, err := json.Marshal(g.settings)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(givenFile, data, 0o600), components.Configure(g.settings))
}

// savedGiven reads what save wrote.
func savedGiven() (given, error) {
	found, err := settings.ReadFile(givenFile)
	return newGiven(found), err
}

// addresses are those that all nodes have from the start.
func (g given) addresses() []netip.Addr {
	var all []netip.Addr
	for _, each := range g.cluster.Members() {
		all = append(all, each.NodeAddresses()...)
	}
	if g.settings.Disabled(settings.DNS) {
		return all
	}
	return append(all, g.cluster.DNS)
}

// seed is the database that the cluster begins with; none if "".
func (g given) seed() string {
	if g.settings.Seeded() {
		return components.Seed
	}
	return ""
}

// sets are the objects that the cluster is to have: those that the seed has, where it cannot begin with that, and the user's.
func (g given) sets() ([]manifests.Set, error) {
	var all []manifests.Set
	if g.seed() == "" {
		own, err := manifests.Read(ownFolder)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(own, func(one manifests.Set) bool {
			return one.Name == settings.DNS+".yaml" && g.settings.Disabled(settings.DNS)
		})
	}
	for _, each := range g.settings.Manifests {
		set, err := manifests.Parse(each.Name, []byte(each.Text))
		if err != nil {
			return nil, err
		}
		all = append(all, set)
	}
	return all, nil
}

// whole are the stages that make the node whole.
func (g given) whole() []string {
	all := []string{"ready", "accounts", "manifests", "service", "controllers", "services", "dns"}
	if g.cluster.Nodes > 1 {
		all = append(all, "nodes")
	}
	return slices.DeleteFunc(all, g.settings.Disabled)
}

// refusals are what the kubelet goes on trying without an end, and says in its log only: what the API refuses of its node. (klog
// quotes the error.)
var refusals = regexp.MustCompile(`"Unable to register node with API server" err=("(?:[^"\\]|\\.)*(?:is invalid:|is not allowed to)(?:[^"\\]|\\.)*")`)

// refused is why the node will never be there, by a line of the kubelet's log.
func refused(component, text string) error {
	if component != "kubelet" {
		return nil
	}
	found := refusals.FindStringSubmatch(text)
	if found == nil {
		return nil
	}
	said, err := strconv.Unquote(found[1])
	if err != nil {
		return err
	}
	return errors.New(said)
}

// lastWord is why a program ended, by its own words: the last line of its log, where that begins with its name.
func lastWord(program string, log []string, err error) error {
	if len(log) > 0 {
		if said, found := strings.CutPrefix(log[len(log)-1], program+": "); found {
			return errors.New(said)
		}
	}
	return err
}

// divert has all that is printed on standard output from now on, which is where the API server writes what it audits, be lines of
// a component's log. What has the descriptor already keeps it.
func divert(log io.Writer) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	os.Stdout = writer
	go func() {
		for lines := bufio.NewReader(reader); ; {
			line, err := lines.ReadBytes('\n')
			_, _ = log.Write(line)
			if err != nil {
				return
			}
		}
	}()
	return nil
}

// portOf is the API's port by the settings of a file.
func portOf(document string) error {
	found, err := settings.ReadFile(document)
	if err != nil {
		return err
	}
	_, err = fmt.Println(newGiven(found).cluster.APIPort)
	return err
}
