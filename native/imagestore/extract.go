package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// extract writes a layer into folder and returns the bytes of its files. A layer holds files, folders and
// links of root; anything else could not be kept by a store that belongs to an
// ordinary user, and is refused.
func (s *store) extract(path, folder string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var total int64
	archive := tar.NewReader(file)
	for {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return 0, err
		}
		if err := check(entry); err != nil {
			return 0, err
		}
		target := filepath.Join(folder, entry.Name)
		if err := place(archive, entry, target); err != nil {
			return 0, err
		}
		total += entry.Size
		if err := s.note(entry, target); err != nil {
			return 0, err
		}
	}
}

func check(entry *tar.Header) error {
	switch {
	case !filepath.IsLocal(entry.Name):
		return fmt.Errorf("%q leaves the layer's folder", entry.Name)
	case entry.Uid != 0 || entry.Gid != 0:
		return fmt.Errorf("%s belongs to %d:%d; only files of root are taken", entry.Name, entry.Uid, entry.Gid)
	case strings.HasPrefix(filepath.Base(entry.Name), ".wh."):
		return fmt.Errorf("%s is a whiteout; layers that delete files are not taken", entry.Name)
	case entry.Typeflag != tar.TypeReg && entry.Typeflag != tar.TypeDir && entry.Typeflag != tar.TypeSymlink:
		return fmt.Errorf("%s is neither a file, a folder nor a symbolic link", entry.Name)
	}
	return nil
}

func place(archive io.Reader, entry *tar.Header, target string) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	switch entry.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(target, 0o755)
	case tar.TypeSymlink:
		return os.Symlink(entry.Linkname, target)
	}
	mode := os.FileMode(0o644)
	if entry.Mode&0o100 != 0 {
		mode = 0o755
	}
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, archive)
	return errors.Join(err, file.Close())
}

// note remembers a mode that is neither 0644 nor 0755: the node sets it at boot.
func (s *store) note(entry *tar.Header, target string) error {
	bits := entry.Mode & 0o7777
	if entry.Typeflag == tar.TypeSymlink || bits == 0o755 || entry.Typeflag == tar.TypeReg && bits == 0o644 {
		return nil
	}
	name, err := filepath.Rel(s.root, target)
	if err != nil {
		return err
	}
	s.modes[name] = fmt.Sprintf("%04o", bits)
	return nil
}
