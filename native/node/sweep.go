package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	"sandkube/node/settings"
)

const sweepPatience = 10 * time.Second

// sweep ends what a node in place left that was killed and could not leave by itself: the processes whose root is this
// folder, in another mount namespace than ours, and those below them; then its cgroups and its addresses, unless another
// node has them. It tells how many processes there were. document is the file of the node's settings, which has its ranges.
func sweep(root, document string) error {
	of, err := clusterOf(document)
	if err != nil {
		return err
	}
	ended := map[int]bool{}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) { // nothing tells of the end of a process that is not a child
		own, err := rooted(root)
		if err != nil {
			return err
		}
		// Shims are the last to go: containers are below them.
		pids := slices.DeleteFunc(below(own...), func(pid int) bool { return slices.Contains(own, pid) })
		if len(pids) == 0 {
			pids = own
		}
		if len(pids) == 0 {
			break
		}
		if time.Since(start) > sweepPatience {
			return fmt.Errorf("processes of an earlier node do not end: %v", pids)
		}
		for _, pid := range pids {
			ended[pid] = true
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("ending process %d of an earlier node: %w", pid, err)
			}
		}
	}
	if len(ended) > 0 {
		fmt.Printf("%d processes that it left are ended\n", len(ended))
	}
	claim, err := net.Listen("unix", claimed)
	if err != nil {
		return nil // another node runs in this network: what is there may be its
	}
	defer claim.Close()
	err = boot.LeaveCgroups()
	if errors.Is(err, unix.EROFS) {
		err = nil // the node had a mount of its own (native/userns, --cgroups), and so has the next one
	}
	return errors.Join(err, boot.LeaveNetwork(of))
}

func clusterOf(document string) (cluster.Cluster, error) {
	found, err := settings.ReadFile(document)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // it had none
	}
	return found.Of(cluster.Default), err
}

// rooted lists the processes that have a folder as their root, in another mount namespace than ours: chroot(2) is no
// sign of a node, pivot_root(2) in a namespace of its own is.
func rooted(root string) ([]int, error) {
	var wanted unix.Stat_t
	if err := unix.Stat(root, &wanted); err != nil {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, folder := range folders {
		var its unix.Stat_t
		namespace, err := os.Readlink(filepath.Join(folder, "ns/mnt"))
		if err != nil || namespace == ours || unix.Stat(filepath.Join(folder, "root"), &its) != nil {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(folder)); err == nil && its.Dev == wanted.Dev && its.Ino == wanted.Ino {
			found = append(found, pid)
		}
	}
	return found, nil
}
