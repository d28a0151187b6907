// Package images puts the image store that was built into the root file
// system under containerd's root folder, in milliseconds.
//
// The two databases are copied, for containerd writes to them. Each blob and
// each snapshot becomes a symbolic link into the read-only store: containerd
// follows it to read, and when it deletes an image it removes the link alone.
package images

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Names of containerd's plug-in folders (containerd 2.1, version 3 configuration).
const (
	content     = "io.containerd.content.v1.content"
	metadata    = "io.containerd.metadata.v1.bolt"
	snapshotter = "io.containerd.snapshotter.v1.overlayfs"
)

// ModesFile lists the modes that the read-only store could not keep, by path.
const ModesFile = "modes.json"

// Mount makes the folder target, containerd's root, from source. Without source there are no images.
func Mount(source, target string) error {
	if _, err := os.Stat(source); os.IsNotExist(err) {
		return nil
	}
	for _, name := range []string{metadata + "/meta.db", snapshotter + "/metadata.db"} {
		if err := copyFile(filepath.Join(source, name), filepath.Join(target, name)); err != nil {
			return err
		}
	}
	for _, folder := range []string{content + "/blobs/sha256", snapshotter + "/snapshots"} {
		if err := linkAll(filepath.Join(source, folder), filepath.Join(target, folder)); err != nil {
			return err
		}
	}
	return setModes(source)
}

func copyFile(source, target string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	return os.WriteFile(target, data, 0o600)
}

// linkAll makes a link in target for each entry of source.
func linkAll(source, target string) error {
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.Symlink(filepath.Join(source, entry.Name()), filepath.Join(target, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// setModes gives files of snapshots their modes, and owners where those are not root; the node's root is writable in memory.
func setModes(source string) error {
	data, err := os.ReadFile(filepath.Join(source, ModesFile))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var modes map[string]string
	if err := json.Unmarshal(data, &modes); err != nil {
		return fmt.Errorf("%s: %w", ModesFile, err)
	}
	for name, noted := range modes {
		octal, owner, owned := strings.Cut(noted, " ")
		if owned {
			if err := setOwner(filepath.Join(source, name), owner); err != nil {
				return fmt.Errorf("%s: %s: %w", ModesFile, name, err)
			}
		}
		bits, err := strconv.ParseUint(octal, 8, 32)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", ModesFile, name, err)
		}
		mode := fs.FileMode(bits & 0o777)
		for bit, flag := range map[uint64]fs.FileMode{0o1000: fs.ModeSticky, 0o2000: fs.ModeSetgid, 0o4000: fs.ModeSetuid} {
			if bits&bit != 0 {
				mode |= flag
			}
		}
		if err := os.Chmod(filepath.Join(source, name), mode); err != nil {
			return err
		}
	}
	return nil
}

// setOwner gives a file to UID:GID.
func setOwner(path, owner string) error {
	uid, gid, _ := strings.Cut(owner, ":")
	user, err := strconv.Atoi(uid)
	if err != nil {
		return err
	}
	group, err := strconv.Atoi(gid)
	if err != nil {
		return err
	}
	return os.Lchown(path, user, group)
}
