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
// ports: HostIP empty or 0.0.0.0 means every address of the node. Second is the pod's address in IPv6, if it has one.
type hostPorts struct {
	ContainerID string     `json:"containerID"`
	Address     netip.Addr `json:"address"`
	Second      netip.Addr `json:"second"`
	Mappings    []mapping  `json:"mappings"`
}

// mapping is one host port.
type mapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
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

// hostPorts asks for the host ports of a pod. podnet has refused what could not be met, with a word to the pod. Nodes share
// loopback: who names it has it there, wherever the pod is; who names no address has the first node's.
func (w *wishes) hostPorts(pod hostPorts) {
	own := pod.Address
	if w.node.second() {
		own = pod.Second
	}
	for _, m := range pod.Mappings {
		protocol := v1.Protocol(strings.ToUpper(m.Protocol))
		name := "host port " + m.HostIP + ":" + strconv.Itoa(int(m.HostPort)) + "/" + string(protocol) + " of " + pod.ContainerID + w.suffix()
		addresses := w.node.of(own)
		address, err := netip.ParseAddr(m.HostIP)
		if pod.Second.IsValid() && err == nil && address.Is6() != w.node.second() {
			continue // which the other family has
		}
		if m.HostIP != "" && (err != nil || !address.IsUnspecified()) {
			shared := address.IsLoopback() && slices.Contains(w.node.Addresses, address)
			if err != nil || !shared && !slices.Contains(addresses, address) {
				w.refuse("%s: %s is no address of the node", name, m.HostIP)
				continue
			}
			addresses = []netip.Addr{address}
		}
		w.rule(rule{Name: name, Endpoints: []netip.AddrPort{netip.AddrPortFrom(own, m.ContainerPort)}})
		for _, address := range addresses {
			w.claim(ofHostPort, name, frontend{protocol, netip.AddrPortFrom(address, m.HostPort)})
		}
	}
}
