package boot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"sandkube/node/cluster"
)

// Kept is where a node finds the folder that outlives it, if it has one: a mount of the host's.
const Kept = "/var/kept"

// kept are the folders that lie in Kept, by their names there.
var kept = []struct {
	name, path string
	mode       os.FileMode
	owned      bool // pods own files in it
	each       bool // each node has its own
}{
	{"pki", "/run/sandkube/pki", 0o700, false, false},
	{"db", "/var/lib/sandkube/db", 0o700, false, false},
	{"logs", "/var/log/pods", 0o755, false, true},
	{"pods", "/var/lib/kubelet/pods", 0o750, true, true},
	{"claims", cluster.Storage, 0o700, false, false},
	// What hostPath volumes are in by custom.
	{"data", "/data", 0o755, false, false},
	{"mnt", "/mnt", 0o755, false, false},
	{"srv", "/srv", 0o755, false, false},
}

// keptOf is what is in Kept of one node's own; the first has it between what is of all.
func keptOf(of cluster.Cluster) string {
	if of.Number == 1 {
		return Kept
	}
	return filepath.Join(Kept, "nodes", of.NodeName)
}

// keepFolders binds the folders of Kept over those of this boot, for the first node all of them, below a root.
func keepFolders(of cluster.Cluster, root string) error {
	if err := mounted(Kept); err != nil {
		return err
	}
	ownable := ownable(Kept)
	for _, each := range kept {
		if !each.each && of.Number > 1 {
			continue
		}
		source, target := filepath.Join(keptOf(of), each.name), filepath.Join(root, each.path)
		if each.owned && ownable != nil {
			klog.InfoS("Not kept, for files there cannot be given to other users", "folder", each.path, "why", ownable)
			continue
		}
		for _, folder := range []string{source, target} {
			if err := os.MkdirAll(folder, each.mode); err != nil {
				return err
			}
		}
		if err := bind(source, target); err != nil {
			return err
		}
	}
	return nil
}

// mounted says whether something is mounted on a folder: without it, data would be lost with the node.
func mounted(folder string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) { // proc(5): the fifth field is the mount point
		if fields := bytes.Fields(line); len(fields) > 4 && string(fields[4]) == folder {
			return nil
		}
	}
	return fmt.Errorf("no folder for data that stay is mounted on %s", folder)
}

// ownable says why files in a folder cannot be given to other users, as where the host's user is an ordinary one.
func ownable(folder string) error {
	file, err := os.CreateTemp(folder, ".owner-")
	if err != nil {
		return err
	}
	_ = file.Close()
	defer os.Remove(file.Name())
	if err := os.Lchown(file.Name(), 1, 1); err != nil {
		return err
	}
	var status unix.Stat_t
	if err := unix.Lstat(file.Name(), &status); err != nil {
		return err
	}
	if status.Uid != 1 { // gVisor's chown(2) says nothing of the host's refusal
		return unix.EPERM
	}
	return nil
}
