package boot

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
	"sandkube/node/fixes"
)

// shared are the folders of the first node that further nodes have as well: host ports are served by one process for all.
const shared = "/run/sandkube/hostports"

// MakeMember makes a further node's folder, a file system in memory, for MemberMounts.
func MakeMember(of cluster.Cluster) error {
	folder := of.Folder()
	if err := tmpfs(folder, 0o755); err != nil {
		return err
	}
	for _, each := range append([]string{shared}, needed...) {
		if err := os.MkdirAll(filepath.Join(folder, each), 0o700); err != nil {
			return err
		}
	}
	for _, each := range own {
		path := filepath.Join(folder, each.path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, each.mode); err != nil {
			return err
		}
	}
	return os.MkdirAll(shared, 0o700)
}

// own are the folders that each node has for itself.
var own = append([]folder{{state, 0o755}}, fresh...)

// MemberMounts makes a further node of a process in a mount namespace that is a copy of the first node's: what each node has for
// itself lies over what the first one has. All else, hostPath volumes elsewhere too, is the same for all.
func MemberMounts(of cluster.Cluster, keep bool) error {
	unix.Umask(0o022)
	mine := of.Folder()
	if err := bind(shared, filepath.Join(mine, shared)); err != nil {
		return err
	}
	for _, each := range written {
		path := filepath.Join(mine, each)
		if err := tmpfs(path, 0o700, limit(of)); err != nil {
			return err
		}
	}
	if keep {
		if err := keepFolders(of, mine); err != nil {
			return err
		}
	}
	for _, each := range own {
		if each.path == "/run" {
			continue // the last: mine is in it
		}
		if err := bind(filepath.Join(mine, each.path), each.path); err != nil {
			return err
		}
	}
	if err := bind(filepath.Join(mine, "/run"), "/run"); err != nil {
		return err
	}
	return shareRoot()
}

// limit is an option of a file system in memory that pods write into.
func limit(of cluster.Cluster) string {
	return fmt.Sprintf("size=%d", of.Usable(fixes.TotalMemory())/4/uint64(of.Nodes))
}

// bind has a folder, and what is mounted in it, be found at another path as well.
func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("binding %s over %s: %w", source, target, err)
	}
	return nil
}
