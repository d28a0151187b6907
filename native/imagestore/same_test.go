package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden digest anew")

// Neither order, umask, time zone nor folder counts, and nothing is left to chance: bbolt would
// number pages in the order of a Go map.
func TestSameBytes(t *testing.T) {
	arguments := twoImages(t)
	golden, err := os.ReadFile("testdata/store.digest")
	if err != nil && !*update {
		t.Fatal(err)
	}
	old, zone := unix.Umask(0o022), time.Local
	defer func() { unix.Umask(old); time.Local = zone }()
	for round := range 20 {
		unix.Umask([]int{0o022, 0o077, 0}[round%3])
		time.Local = time.FixedZone("somewhere", round*3600)
		slices.Reverse(arguments)
		out := filepath.Join(t.TempDir(), strings.Repeat("deeper/", round%4), "out")
		if err := run(out, "k8s.io", arguments); err != nil {
			t.Fatal(err)
		}
		found := treeDigest(t, out) + "\n"
		if *update {
			if err := os.WriteFile("testdata/store.digest", []byte(found), 0o644); err != nil {
				t.Fatal(err)
			}
			*update, golden = false, []byte(found)
		}
		if found != string(golden) {
			t.Fatalf("round %d: digest %s, not that of testdata/store.digest: %s", round, found, golden)
		}
	}
}

// Every time in both databases is the epoch, and their pages are of the fixed size.
func TestNoClock(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	if err := run(out, "k8s.io", twoImages(t)); err != nil {
		t.Fatal(err)
	}
	for name, wanted := range map[string]int{metadataFolder + "/meta.db": 30, snapshotterFolder + "/metadata.db": 4} {
		db, err := bolt.Open(filepath.Join(out, name), 0o600, &bolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if size := db.Info().PageSize; size != 4096 {
			t.Errorf("%s: pages of %d bytes", name, size)
		}
		times := 0
		err = db.View(func(transaction *bolt.Tx) error {
			return transaction.ForEach(func(_ []byte, bucket *bolt.Bucket) error {
				return eachTime(bucket, func(moment []byte) error {
					var found time.Time
					if err := found.UnmarshalBinary(moment); err != nil {
						return err
					}
					if times++; found.Unix() != 315532800 {
						t.Errorf("%s holds the time %s", name, found)
					}
					return nil
				})
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if times != wanted {
			t.Errorf("%s holds %d times, expected %d", name, times, wanted)
		}
	}
}

func eachTime(bucket *bolt.Bucket, visit func([]byte) error) error {
	return bucket.ForEach(func(key, value []byte) error {
		if value == nil {
			return eachTime(bucket.Bucket(key), visit)
		}
		if strings.HasSuffix(string(key), "edat") {
			return visit(value)
		}
		return nil
	})
}
