package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MakeCgroup makes a cgroup, below the root of version 2, or of each hierarchy of version 1, with all controllers that its
// parents have.
func MakeCgroup(root, name string) error {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return makeCgroup(root, name, handOn)
	}
	hierarchies, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var all []error
	for _, each := range hierarchies {
		if each.IsDir() { // others are links to these
			all = append(all, makeCgroup(filepath.Join(root, each.Name()), name, inherit))
		}
	}
	return errors.Join(all...)
}

// makeCgroup makes what is missing on the way to a cgroup, and has each parent share what it has with its child.
func makeCgroup(parent, name string, share func(parent, child string) error) error {
	for _, part := range strings.Split(strings.Trim(name, "/"), "/") {
		child := filepath.Join(parent, part)
		if err := os.Mkdir(child, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := share(parent, child); err != nil {
			return err
		}
		parent = child
	}
	return nil
}

// handOn has the children of a cgroup of version 2 have its controllers, but for those that it may not hand on.
func handOn(parent, _ string) error {
	names, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, each := range strings.Fields(string(names)) {
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+each), 0o644) // the kubelet checks what is there
	}
	return nil
}

// inherit gives a cgroup of version 1 the cores and memory nodes without which no process can be in it.
func inherit(parent, child string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(child, name), value, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// LeaveCgroups removes the cgroups of pods and further nodes, of version 1 and 2. Where a process is in one of them nothing is removed of
// that hierarchy: another kubelet may have it.
func LeaveCgroups() error {
	var all []error
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods", "/sys/fs/cgroup/nodes", "/sys/fs/cgroup/*/nodes"} {
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
