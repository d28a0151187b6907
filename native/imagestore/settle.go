package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// moment stands for every time in the databases: 1980-01-01, the epoch of all builds.
var moment = time.Unix(315532800, 0).UTC()

// settle writes both databases anew: the same keys in their order, fixed times, sizes
// that do not depend on the file system of the build.
func (s *store) settle() error {
	for _, name := range []string{metadataFolder + "/meta.db", snapshotterFolder + "/metadata.db"} {
		if err := s.rewrite(filepath.Join(s.root, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := s.noteFolders(); err != nil {
		return err
	}
	// What containerd makes for its own work, and makes again where it is missing.
	return os.RemoveAll(filepath.Join(s.root, contentFolder, "ingest"))
}

func (s *store) rewrite(path string) error {
	old, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	fresh := path + ".new"
	// A page size of its own would make the file depend on the machine.
	file, err := bolt.Open(fresh, 0o644, &bolt.Options{PageSize: 4096, NoFreelistSync: true, NoSync: true})
	if err != nil {
		return errors.Join(err, old.Close())
	}
	err = old.View(func(from *bolt.Tx) error {
		return from.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			return s.copyBucket(bucket, file, [][]byte{slices.Clone(name)})
		})
	})
	if err := errors.Join(err, file.Sync(), file.Close(), old.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// copyBucket copies a bucket to the place called path, then the buckets inside it, each in a
// transaction of its own: a transaction that has touched two buckets writes them in the order of
// a Go map (bbolt 1.4.2, Bucket.spill), and so gives their pages numbers by chance.
func (s *store) copyBucket(from *bolt.Bucket, file *bolt.DB, path [][]byte) error {
	err := file.Update(func(transaction *bolt.Tx) error {
		to, err := makeBucket(transaction, path)
		if err != nil {
			return err
		}
		to.FillPercent = 0.9
		if err := to.SetSequence(from.Sequence()); err != nil {
			return err
		}
		return from.ForEach(func(key, value []byte) error {
			if value == nil {
				return nil // a bucket
			}
			settled, err := s.settled(string(key), value, string(path[len(path)-1]))
			if err != nil {
				return err
			}
			return to.Put(key, settled)
		})
	})
	if err != nil {
		return err
	}
	return from.ForEachBucket(func(name []byte) error {
		return s.copyBucket(from.Bucket(name), file, append(slices.Clone(path), slices.Clone(name)))
	})
}

// makeBucket makes the last bucket of path; those before it are there already.
func makeBucket(transaction *bolt.Tx, path [][]byte) (*bolt.Bucket, error) {
	if len(path) == 1 {
		return transaction.CreateBucket(path[0])
	}
	bucket := transaction.Bucket(path[0])
	for _, name := range path[1 : len(path)-1] {
		bucket = bucket.Bucket(name)
	}
	return bucket.CreateBucket(path[len(path)-1])
}

// settled returns the value to write for a key. The snapshotter's database keeps the disk usage
// of a snapshot as a varint under "size"; its bucket ends in the chain id.
func (s *store) settled(key string, value []byte, bucket string) ([]byte, error) {
	switch key {
	case "createdat", "updatedat":
		return moment.MarshalBinary()
	case "size":
		// Names of snapshots are NAMESPACE/NUMBER/CHAIN; the blobs of meta.db have a size as well.
		if parts := strings.SplitN(bucket, "/", 3); len(parts) == 3 {
			if size, found := s.sizes[parts[2]]; found {
				return binary.AppendVarint(nil, size), nil
			}
		}
	}
	return slices.Clone(value), nil
}

// noteFolders remembers the mode of every folder of a snapshot that no layer names: our
// read-only store makes each folder 0555, in a container its owner may write to it.
func (s *store) noteFolders() error {
	snapshots := filepath.Join(s.root, snapshotterFolder, "snapshots")
	return filepath.WalkDir(snapshots, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		inside, err := filepath.Rel(snapshots, path)
		if err != nil {
			return err
		}
		// NUMBER/fs and what is below it; the folder `work` beside it is empty.
		if parts := strings.SplitN(inside, string(filepath.Separator), 3); len(parts) < 2 || parts[1] != "fs" {
			return nil
		}
		name, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		if _, found := s.modes[name]; !found {
			s.modes[name] = "0755"
		}
		return nil
	})
}
