// Package files replaces files so that a node that is killed leaves the old one or the new one, and no part of either.
package files

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace writes a file whole, on the disk before it has its name.
func Replace(path string, data []byte, mode os.FileMode) (err error) {
	folder := filepath.Dir(path)
	file, err := os.CreateTemp(folder, "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(data)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return err
	}
	return sync(folder)
}

// sync writes a folder's names to the disk.
func sync(folder string) error {
	opened, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}
