package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"sandkube/node/cluster"
)

// leaseFolder is where the CNI plugin podnet keeps who has which address, from before a pod's first program starts until
// after its last one ended. Tests have another.
var leaseFolder = cluster.Leases

// leaseFolders are those of all nodes, the first one's first.
func leaseFolders(of cluster.Cluster) []string {
	all := []string{leaseFolder}
	for _, each := range of.Members()[1:] {
		all = append(all, filepath.Join(each.Folder(), leaseFolder))
	}
	return all
}

// lease is what a file of the folder says, whose name is the address. Second is the one in IPv6, if there is one.
type lease struct {
	Second netip.Addr `json:"second"`
	Pod    struct {
		Namespace string    `json:"namespace"`
		Name      string    `json:"name"`
		UID       types.UID `json:"uid"`
	} `json:"pod"`
}

// leases are all of a folder. One that is given up meanwhile is left out; hidden files are still being written.
func leases(folder string) (map[netip.Addr]lease, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	found := make(map[netip.Addr]lease, len(entries))
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		path := filepath.Join(folder, entry.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		address, invalid := netip.ParseAddr(entry.Name())
		var one lease
		if err = errors.Join(err, invalid); err == nil {
			err = json.Unmarshal(data, &one)
		}
		if err != nil {
			return nil, fmt.Errorf("lease %s: %w", path, err)
		}
		found[address] = one
	}
	return found, nil
}
