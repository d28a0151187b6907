package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// moment stands for every time in the databases: 1980-01-01, the epoch of all builds.
var moment = time.Unix(315532800, 0).UTC()

// settle writes both databases anew: the same keys in their order, fixed times, sizes
// that do not depend on the file system of the build, no page that was used before.
func (s *store) settle() error {
	for _, name := range []string{metadataFolder + "/meta.db", snapshotterFolder + "/metadata.db"} {
		if err := s.rewrite(filepath.Join(s.root, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
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
	file, err := bolt.Open(fresh, 0o644, &bolt.Options{PageSize: 4096, NoFreelistSync: true})
	if err != nil {
		return errors.Join(err, old.Close())
	}
	err = old.View(func(from *bolt.Tx) error {
		return file.Update(func(to *bolt.Tx) error {
			return from.ForEach(func(name []byte, bucket *bolt.Bucket) error {
				made, err := to.CreateBucket(name)
				if err != nil {
					return err
				}
				return s.copyBucket(bucket, made, string(name))
			})
		})
	})
	if err := errors.Join(err, file.Close(), old.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// copyBucket copies a bucket called name, with the buckets inside it.
func (s *store) copyBucket(from, to *bolt.Bucket, name string) error {
	to.FillPercent = 0.9
	if err := to.SetSequence(from.Sequence()); err != nil {
		return err
	}
	return from.ForEach(func(key, value []byte) error {
		if value != nil {
			settled, err := s.settled(string(key), value, name)
			if err != nil {
				return err
			}
			return to.Put(key, settled)
		}
		inner, err := to.CreateBucket(key)
		if err != nil {
			return err
		}
		return s.copyBucket(from.Bucket(key), inner, string(key))
	})
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
	return append([]byte(nil), value...), nil
}
