package main

import (
	"bytes"
	"math/rand"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	source := rand.New(rand.NewSource(1))
	long := make([]byte, 3<<20)
	source.Read(long)
	for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("abc"), 1<<20), append(long, long...)} {
		var packed, again, unpacked bytes.Buffer
		for _, to := range []*bytes.Buffer{&packed, &again} {
			if err := compress(to, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(packed.Bytes(), again.Bytes()) {
			t.Error("twice compressed gives other bytes")
		}
		if err := decompress(&unpacked, bytes.NewReader(packed.Bytes())); err != nil || !bytes.Equal(unpacked.Bytes(), data) {
			t.Errorf("%d bytes: %v", len(data), err)
		}
	}
}

// A frame that is cut or has other bytes is an error: its checksum is there.
func TestDamage(t *testing.T) {
	var packed bytes.Buffer
	if err := compress(&packed, bytes.NewReader(bytes.Repeat([]byte("word "), 1<<10))); err != nil {
		t.Fatal(err)
	}
	whole := packed.Bytes()
	for at := range whole {
		var to bytes.Buffer
		if err := decompress(&to, bytes.NewReader(whole[:at])); err == nil && at > 0 {
			t.Errorf("cut at %d of %d: no error", at, len(whole))
		}
	}
}
