package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// hostPorts is one file that the CNI plugin podnet writes for a pod with host
// ports: HostIP empty or 0.0.0.0 means every address of the node.
type hostPorts struct {
	ContainerID string     `json:"containerID"`
	Address     netip.Addr `json:"address"`
	Mappings    []struct {
		HostPort      uint16 `json:"hostPort"`
		ContainerPort uint16 `json:"containerPort"`
		Protocol      string `json:"protocol"`
		HostIP        string `json:"hostIP"`
	} `json:"mappings"`
}

func (p hostPorts) rules(nodeAddresses []netip.Addr) []rule {
	rules := make([]rule, 0, len(p.Mappings))
	for _, m := range p.Mappings {
		protocol := v1.Protocol(strings.ToUpper(m.Protocol))
		r := rule{
			Name:      "host port " + m.HostIP + ":" + strconv.Itoa(int(m.HostPort)) + "/" + string(protocol) + " of " + p.ContainerID,
			Endpoints: []netip.AddrPort{netip.AddrPortFrom(p.Address, m.ContainerPort)},
		}
		addresses := nodeAddresses
		if address, err := netip.ParseAddr(m.HostIP); err == nil && !address.IsUnspecified() {
			addresses = []netip.Addr{address}
		}
		for _, address := range addresses {
			r.Frontends = append(r.Frontends, frontend{protocol, netip.AddrPortFrom(address, m.HostPort)})
		}
		rules = append(rules, r)
	}
	return rules
}

// readHostPorts reads every file of the folder, sorted by name. A file that is
// removed meanwhile is left out; hidden files are still being written.
func readHostPorts(folder string) ([]hostPorts, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "[^.]*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var pods []hostPorts
	var problems []error
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var pod hostPorts
		if err == nil {
			err = json.Unmarshal(data, &pod)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
			continue
		}
		pods = append(pods, pod)
	}
	return pods, errors.Join(problems...)
}
