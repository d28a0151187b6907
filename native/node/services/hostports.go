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
