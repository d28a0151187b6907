package boot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sandkube/node/cluster"
	"sandkube/node/files"
	"sandkube/node/fixes"
)

// Folders of templates, and of what the node made of them: each has the same name there.
const (
	templates  = "/etc/sandkube"
	configured = "/run/sandkube"
)

// Configure fills in all templates and makes a machine id: this machine is a new one at each boot, unless its data stay.
// Files of /etc that depend on the cluster are links to what it makes.
func Configure(plan fixes.Plan, of cluster.Cluster, keep bool) error {
	if err := Render(plan, of, templates, configured); err != nil {
		return err
	}
	if !keep {
		return os.WriteFile(filepath.Join(configured, "machine-id"), machineID(), 0o444)
	}
	return keepMachineID(keptOf(of), configured)
}

// keepMachineID has the id in one folder that is, or will be, in the other, which stays.
func keepMachineID(stays, configured string) error {
	path := filepath.Join(stays, "machine-id")
	id, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id = machineID()
		err = errors.Join(os.MkdirAll(stays, 0o700), files.Replace(path, id, 0o444))
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(configured, "machine-id"), id, 0o444)
}

// Render fills in the templates of a folder, in another folder.
func Render(plan fixes.Plan, of cluster.Cluster, source, target string) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(target, name), 0o700)
		}
		return plan.Render(of, path, filepath.Join(target, name))
	})
}

// machineID makes one of machine-id(5): 32 lower-case hexadecimal digits, the form of a random UUID.
func machineID() []byte {
	number := make([]byte, 16)
	_, _ = rand.Read(number) // which never fails (Go 1.24)
	number[6], number[8] = number[6]&0x0f|0x40, number[8]&0x3f|0x80
	return []byte(hex.EncodeToString(number) + "\n")
}
