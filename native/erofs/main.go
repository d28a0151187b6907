// Command erofs writes a folder as an EROFS image (https://erofs.docs.kernel.org), which Linux and gVisor mount as it is.
//
// The same files make the same bytes: everything belongs to 0:0 and has the time in SOURCE_DATE_EPOCH, modes are 0644 and
// 0755, the volume has no UUID, nothing is compressed.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	erofs "github.com/erofs/go-erofs"
)

// add makes one entry of the image; name is absolute there.
func add(image *erofs.Writer, from *os.Root, name string, entry fs.DirEntry) error {
	inside := path.Join("/", name)
	switch entry.Type() {
	case fs.ModeDir:
		return image.Mkdir(inside, 0o755)
	case fs.ModeSymlink:
		target, err := from.Readlink(name)
		if err != nil {
			return err
		}
		return image.Symlink(target, inside)
	case 0:
		return addFile(image, from, name, inside)
	}
	return fmt.Errorf("%s: neither file, folder nor link", name)
}

func addFile(image *erofs.Writer, from *os.Root, name, inside string) error {
	source, err := from.Open(name)
	if err != nil {
		return err
	}
	defer source.Close()
	about, err := source.Stat()
	if err != nil {
		return err
	}
	file, err := image.Create(inside)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if about.Mode()&0o100 != 0 {
		mode = 0o755
	}
	if err := file.Chmod(mode); err != nil {
		return err
	}
	if _, err := io.Copy(file, source); err != nil {
		return err
	}
	return file.Close()
}

// write makes an image of a folder.
func write(to *os.File, folder string, when time.Time) error {
	from, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer from.Close()
	// The library keeps contents in a file until it knows their place.
	image := erofs.Create(to, erofs.WithBuildTime(uint64(when.Unix()), 0), erofs.WithTempDir(filepath.Dir(to.Name())))
	err = fs.WalkDir(from.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := add(image, from, name, entry); err != nil {
			return err
		}
		inside := path.Join("/", name)
		if err := image.Chown(inside, 0, 0); err != nil {
			return err
		}
		return image.Chtimes(inside, when, when)
	})
	return errors.Join(err, image.Close())
}

func run(words []string, epoch string) error {
	if len(words) != 2 {
		return errors.New("usage: SOURCE_DATE_EPOCH=SECONDS erofs FOLDER FILE")
	}
	seconds, err := strconv.ParseUint(epoch, 10, 62)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: no number of seconds: %q", epoch)
	}
	file, err := os.OpenFile(words[1], os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := write(file, words[0], time.Unix(int64(seconds), 0)); err != nil {
		return errors.Join(err, file.Close(), os.Remove(words[1]))
	}
	return file.Close()
}

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "erofs:", err)
		os.Exit(1)
	}
}
