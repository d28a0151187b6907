package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
)

const (
	whiteout = ".wh."
	opaque   = whiteout + whiteout + ".opq"
)

// files are those of an image: its layers are put over each other in one folder.
type files struct {
	inside *os.Root
	note   func(entry *tar.Header, name string)
	forget func(name string)
	layer  map[string]bool // names that the layer at hand has put there
}

// extract writes the layers of an image over each other into folder, and returns the bytes of its files. A layer holds files,
// folders, hard and symbolic links, and says what of the layers below is gone; anything else could not be kept by a store that
// belongs to an ordinary user, and is refused.
func (s *store) extract(image layout, folder string) (int64, error) {
	// Symbolic links of the image itself must not lead out of it either.
	inside, err := os.OpenRoot(folder)
	if err != nil {
		return 0, err
	}
	defer inside.Close()
	below, err := filepath.Rel(s.root, folder)
	if err != nil {
		return 0, err
	}
	all := files{
		inside: inside,
		note:   func(entry *tar.Header, name string) { s.noteMode(entry, filepath.Join(below, name)) },
		forget: func(name string) { s.forget(filepath.Join(below, name)) },
	}
	for at, layer := range image.manifest.Layers {
		if err := all.add(image.path(layer.Digest), image.config.RootFS.DiffIDs[at]); err != nil {
			return 0, err
		}
	}
	var total int64
	err = filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		status, err := entry.Info()
		if err == nil {
			total += status.Size()
		}
		return err
	})
	return total, err
}

// add puts a layer over what is there. It is a tar, or one that is compressed; its own digest is what the image says of it.
func (f *files) add(blob string, id digest.Digest) error {
	file, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer file.Close()
	plain, err := compression.DecompressStream(file)
	if err != nil {
		return err
	}
	defer plain.Close()
	verifier := id.Verifier()
	read := io.TeeReader(plain, verifier)
	f.layer = map[string]bool{}
	for archive := tar.NewReader(read); ; {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := check(entry); err != nil {
			return err
		}
		if err := f.put(archive, entry); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, read); err != nil { // what follows the end of the archive
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("a layer unpacks to other bytes than those of %s", id)
	}
	return nil
}

// inner is a name as it is below the folder: archives may begin it with a slash.
func inner(name string) string { return path.Clean(strings.TrimLeft(name, "/")) }

func check(entry *tar.Header) error {
	if !filepath.IsLocal(inner(entry.Name)) {
		return fmt.Errorf("%q leaves the layer's folder", entry.Name)
	}
	switch entry.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return fmt.Errorf("%s is neither a file, a folder nor a link", entry.Name)
	}
	for record := range entry.PAXRecords {
		if name, found := strings.CutPrefix(record, "SCHILY.xattr."); found {
			return fmt.Errorf("%s has the extended attribute %s; files with such attributes are not taken", entry.Name, name)
		}
	}
	return nil
}

func (f *files) put(archive io.Reader, entry *tar.Header) error {
	name := inner(entry.Name)
	if base := path.Base(name); base == opaque {
		return f.clear(path.Dir(name))
	} else if gone, found := strings.CutPrefix(base, whiteout); found {
		return f.remove(path.Join(path.Dir(name), gone))
	}
	if err := f.inside.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := f.make(archive, entry, name); err != nil {
		return err
	}
	for each := name; each != "."; each = path.Dir(each) {
		f.layer[each] = true
	}
	f.note(entry, name)
	return nil
}

// make makes what an entry says in place of what is there; a folder stays with what is in it.
func (f *files) make(archive io.Reader, entry *tar.Header, name string) error {
	there, err := f.inside.Lstat(name)
	if err == nil && (entry.Typeflag != tar.TypeDir || !there.IsDir()) {
		if err := f.inside.RemoveAll(name); err != nil {
			return err
		}
		f.forget(name)
	}
	switch entry.Typeflag {
	case tar.TypeDir:
		return f.inside.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return f.inside.Symlink(entry.Linkname, name)
	case tar.TypeLink:
		return f.inside.Link(inner(entry.Linkname), name)
	}
	mode := os.FileMode(0o644)
	if entry.Mode&0o100 != 0 {
		mode = 0o755
	}
	file, err := f.inside.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, archive)
	return errors.Join(err, file.Close())
}

// remove takes away what layers below have put there.
func (f *files) remove(name string) error {
	if f.layer[name] {
		return nil
	}
	f.forget(name)
	return f.inside.RemoveAll(name)
}

// clear takes away all that layers below have put into a folder.
func (f *files) clear(folder string) error {
	entries, err := fs.ReadDir(f.inside.FS(), folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		err = errors.Join(err, f.remove(path.Join(folder, entry.Name())))
	}
	return err
}

// noteMode remembers a mode, and an owner that is not root, which the node has to set at boot. Our read-only store keeps of a
// file's mode whether it may be executed. Whether it may be written is left at that: to set it, the overlay of the node's root
// would copy the whole file into memory, as it does for a file that is not root's.
func (s *store) noteMode(entry *tar.Header, name string) {
	bits, owned := entry.Mode&0o7777, entry.Uid != 0 || entry.Gid != 0
	plain := bits == 0o755 || bits == 0o555 || bits == 0o644 || bits == 0o444
	switch {
	case entry.Typeflag == tar.TypeSymlink || entry.Typeflag == tar.TypeLink:
	case owned:
		s.modes[name] = fmt.Sprintf("%04o %d:%d", bits, entry.Uid, entry.Gid)
	case entry.Typeflag == tar.TypeDir || !plain:
		s.modes[name] = fmt.Sprintf("%04o", bits)
	default:
		delete(s.modes, name)
	}
}

// forget drops what is known of a file, or of a folder and all that is in it.
func (s *store) forget(name string) {
	for each := range s.modes {
		if each == name || strings.HasPrefix(each, name+"/") {
			delete(s.modes, each)
		}
	}
}
