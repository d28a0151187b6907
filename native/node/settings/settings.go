// Package settings is what the user of a cluster wants otherwise: a JSON document that the host makes of a file and of options
// (sandkube/cluster/settings.py), and hands to the node on a descriptor. Nothing is set where nothing is said. What it names
// and what values are good is for the components to judge.
package settings

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"sandkube/node/cluster"
)

// Settings are those of one cluster.
type Settings struct {
	FeatureGates      map[string]bool `json:"feature-gates"`
	RuntimeConfig     map[string]bool `json:"runtime-config"`
	Verbosity         int             `json:"verbosity"`
	Disable           []string        `json:"disable"`
	Cluster           Cluster         `json:"cluster"`
	Node              Node            `json:"node"`
	Sandbox           Sandbox         `json:"sandbox"`
	APIServer         APIServer       `json:"apiserver"`
	ControllerManager Component       `json:"controller-manager"`
	Scheduler         Component       `json:"scheduler"`
	Kubelet           Kubelet         `json:"kubelet"`
	Containerd        Containerd      `json:"containerd"`
	Audit             Audit           `json:"audit"`
	Encryption        Encryption      `json:"encryption"`
	Egress            Egress          `json:"egress"`
	Manifests         []Manifest      `json:"manifests"`
	Ingress           Ingress         `json:"ingress"`
}

// Cluster has the ranges of addresses, the domain of names, the port of the API, and how many nodes there are.
type Cluster struct {
	IPFamily        string       `json:"ip-family"`
	Pods            netip.Prefix `json:"pods"`
	Services        netip.Prefix `json:"services"`
	LoadBalancers   netip.Prefix `json:"load-balancers"`
	PodsV6          netip.Prefix `json:"pods-v6"`
	ServicesV6      netip.Prefix `json:"services-v6"`
	LoadBalancersV6 netip.Prefix `json:"load-balancers-v6"`
	Domain          string       `json:"domain"`
	APIPort         uint16       `json:"api-port"`
	Nodes           int          `json:"nodes"`
}

// dual is the family of clusters of dual stack.
const dual = "dual"

// second is the second family of a cluster of dual stack.
func (c Cluster) second() cluster.Family {
	own := cluster.DefaultSecond
	return cluster.Family{
		Pods:          cmp.Or(c.PodsV6, own.Pods),
		Services:      cmp.Or(c.ServicesV6, own.Services),
		LoadBalancers: cmp.Or(c.LoadBalancersV6, own.LoadBalancers),
	}
}

// Node is what the node is called.
type Node struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

// Sandbox is what all of the cluster may take of the machine that it is on: bytes of memory, and processes, 0 for no bound.
// The host sees to that; the node keeps below it.
type Sandbox struct {
	Memory uint64 `json:"memory"`
	PIDs   int    `json:"pids"`
}

// Component has arguments of a program, each "--name=value".
type Component struct {
	Arguments []string `json:"arguments"`
}

// APIServer has admission plugins beside its arguments.
type APIServer struct {
	Arguments               []string `json:"arguments"`
	EnableAdmissionPlugins  []string `json:"enable-admission-plugins"`
	DisableAdmissionPlugins []string `json:"disable-admission-plugins"`
}

// Kubelet has a part of a KubeletConfiguration, as JSON.
type Kubelet struct {
	Arguments     []string       `json:"arguments"`
	Configuration map[string]any `json:"configuration"`
}

// Containerd has a part of its configuration, as TOML.
type Containerd struct {
	Arguments     []string `json:"arguments"`
	Configuration string   `json:"configuration"`
}

// Audit has a policy, as YAML.
type Audit struct {
	Policy string `json:"policy"`
}

// Encryption is of what lies in the datastore: of Secrets by a key that the node makes, or by an EncryptionConfiguration, as YAML.
type Encryption struct {
	Secrets       bool   `json:"secrets"`
	Configuration string `json:"configuration"`
}

// Egress is whether pods have a way out. Where it leads is for the host alone to know.
type Egress struct {
	Enabled bool `json:"enabled"`
}

// Ingress is whether there is a controller of Ingresses and Gateways; its image is in the file system then.
type Ingress struct {
	Enabled bool `json:"enabled"`
}

// Manifest is a file with objects.
type Manifest struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Parts of a node that can be left out.
const (
	DNS           = "dns"
	IngressPart   = "ingress" // which is left out unless it is wanted
	LoadBalancer  = "loadbalancer"
	LocalStorage  = "local-storage"
	MetricsServer = "metrics-server"
	Services      = "services"
)

// Read reads a document to the end of its file; one that is empty sets nothing.
func Read(source io.Reader) (Settings, error) {
	var found Settings
	decoder := json.NewDecoder(source)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&found)
	if errors.Is(err, io.EOF) {
		return found, nil
	}
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the document")
		}
	}
	if err != nil {
		return found, fmt.Errorf("settings: %w", err)
	}
	return found, nil
}

// ReadFile reads a document from a file.
func ReadFile(path string) (Settings, error) {
	file, err := os.Open(path)
	if err != nil {
		return Settings{}, err
	}
	defer file.Close()
	return Read(file)
}

// Of is the cluster that these settings make of one.
func (s Settings) Of(one cluster.Cluster) cluster.Cluster {
	pods, services := one.Pods, one.Services
	if s.Cluster.Pods.IsValid() {
		pods = s.Cluster.Pods
	}
	if s.Cluster.Services.IsValid() {
		services = s.Cluster.Services
	}
	one = one.In(pods, services)
	if s.Cluster.LoadBalancers.IsValid() {
		one.LoadBalancers = s.Cluster.LoadBalancers
	}
	if s.Cluster.IPFamily == dual {
		one = one.With(s.Cluster.second())
	}
	if s.Cluster.Domain != "" {
		one.Domain = s.Cluster.Domain
	}
	if s.Cluster.APIPort != 0 {
		one.APIPort = s.Cluster.APIPort
	}
	one.Nodes = max(1, s.Cluster.Nodes)
	one.Memory = s.Sandbox.Memory
	if s.Egress.Enabled {
		one.Outside = cluster.NamesOutside
	}
	if s.Node.Name != "" {
		one.NodeName = s.Node.Name
	}
	return one
}

// Disabled says whether a part of the node is left out.
func (s Settings) Disabled(part string) bool {
	return slices.Contains(s.Disable, part) || part == IngressPart && !s.Ingress.Enabled
}

// Seeded says whether a cluster can begin with the seed: it has the Services and the address of names in the range that is the
// default, and no other, and nothing in it is encrypted.
func (s Settings) Seeded() bool {
	of := s.Of(cluster.Default)
	return of.Services == cluster.Default.Services && !of.Dual() && !s.Disabled(DNS) && s.Encryption.Configuration == ""
}

// Assigned is a map as a flag takes it: NAME=true,NAME=false, in the order of names.
func Assigned(all map[string]bool) string {
	return joined(all, strconv.FormatBool)
}

// Labelled is a map of texts, likewise.
func Labelled(all map[string]string) string {
	return joined(all, func(text string) string { return text })
}

func joined[V any](all map[string]V, text func(V) string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		words = append(words, name+"="+text(all[name]))
	}
	return strings.Join(words, ",")
}

// Arguments are a program's own, with a user's: one of the user's takes the place of those of its name.
func Arguments(own, users []string) []string {
	named := func(argument string) string { return strings.SplitN(argument, "=", 2)[0] }
	left := slices.DeleteFunc(slices.Clone(own), func(one string) bool {
		return slices.ContainsFunc(users, func(each string) bool { return named(each) == named(one) })
	})
	return append(left, users...)
}
