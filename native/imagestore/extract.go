package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// extract writes a layer into folder and returns the bytes of its files. A layer holds files,
// folders and symbolic links of root; anything else could not be kept by a store that
// belongs to an ordinary user, and is refused. Number counts the image's layers from 0.
func (s *store) extract(layer, folder string, number int) (int64, error) {
	file, err := os.Open(layer)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	// Symbolic links of the layer itself must not lead out of it either.
	inside, err := os.OpenRoot(folder)
	if err != nil {
		return 0, err
	}
	defer inside.Close()
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
		name := path.Clean(entry.Name)
		if err := makeParent(inside, name, number); err != nil {
			return 0, err
		}
		if err := place(archive, entry, inside, name); err != nil {
			return 0, err
		}
		total += entry.Size
		if err := s.note(entry, filepath.Join(folder, name)); err != nil {
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
	case strings.HasPrefix(path.Base(entry.Name), ".wh."):
		return fmt.Errorf("%s is a whiteout; layers that delete files are not taken", entry.Name)
	case entry.Typeflag != tar.TypeReg && entry.Typeflag != tar.TypeDir && entry.Typeflag != tar.TypeSymlink:
		return fmt.Errorf("%s is neither a file, a folder nor a symbolic link", entry.Name)
	}
	for record := range entry.PAXRecords {
		if name, found := strings.CutPrefix(record, "SCHILY.xattr."); found {
			return fmt.Errorf("%s has the extended attribute %s; files with such attributes are not taken", entry.Name, name)
		}
	}
	return nil
}

// makeParent makes the folder that name is in, where a first layer does not hold it. In another
// layer it would hide the mode of the same folder in the layers below.
func makeParent(inside *os.Root, name string, number int) error {
	parent := path.Dir(name)
	_, err := inside.Stat(parent)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w", name, err)
	case number > 0:
		return fmt.Errorf("%s: layer %d does not hold the folder that it is in", name, number+1)
	}
	return inside.MkdirAll(parent, 0o755)
}

func place(archive io.Reader, entry *tar.Header, inside *os.Root, name string) error {
	switch entry.Typeflag {
	case tar.TypeDir:
		return inside.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return inside.Symlink(entry.Linkname, name)
	}
	mode := os.FileMode(0o644)
	if entry.Mode&0o100 != 0 {
		mode = 0o755
	}
	file, err := inside.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, archive)
	return errors.Join(err, file.Close())
}

// note remembers a mode that the node has to set at boot. Our read-only store keeps of a file's
// mode whether it may be executed. Whether it may be written is left at that: to set it, the
// overlay of the node's root would copy the whole file into memory.
func (s *store) note(entry *tar.Header, target string) error {
	bits := entry.Mode & 0o7777
	if entry.Typeflag == tar.TypeSymlink {
		return nil
	}
	if entry.Typeflag == tar.TypeReg && (bits == 0o755 || bits == 0o555 || bits == 0o644 || bits == 0o444) {
		return nil
	}
	name, err := filepath.Rel(s.root, target)
	if err != nil {
		return err
	}
	s.modes[name] = fmt.Sprintf("%04o", bits)
	return nil
}
