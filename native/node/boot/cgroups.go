package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// LeaveCgroups removes the cgroups of pods, of version 1 and 2. Where a process is in one of them nothing is removed of
// that hierarchy: another kubelet may have it.
func LeaveCgroups() error {
	var all []error
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods"} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			all = append(all, removeFolders(root))
		}
	}
	return errors.Join(all...)
}

// removeFolders removes folders from the inside out; the files of a cgroup go with it.
func removeFolders(root string) error {
	var found []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			found = append(found, path)
		}
		return err
	})
	all := []error{err}
	for _, path := range found {
		if processes, err := os.ReadFile(filepath.Join(path, "cgroup.procs")); err == nil && len(processes) > 0 {
			return fmt.Errorf("%s: there are processes in it", path)
		}
	}
	for _, path := range slices.Backward(found) {
		all = append(all, os.Remove(path))
	}
	return errors.Join(all...)
}
