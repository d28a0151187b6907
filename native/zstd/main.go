// Command zstd compresses and decompresses files: what a wheel carries is packed with it when the wheel is made, and
// unpacked with it on machines that have no such program.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// window is how far back a repetition is found, in bytes; a reader needs as much memory.
const window = 32 << 20

func compress(to io.Writer, from io.Reader) error {
	// One goroutine: the same bytes whatever the number of cores.
	encoder, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if _, err := io.Copy(encoder, from); err != nil {
		return err
	}
	return encoder.Close()
}

func decompress(to io.Writer, from io.Reader) error {
	decoder, err := zstd.NewReader(from, zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return err
	}
	defer decoder.Close()
	_, err = io.Copy(to, decoder)
	return err
}

// run does what the words ask for: the second file is standard output if it is left out.
func run(words []string) (err error) {
	work := map[string]func(io.Writer, io.Reader) error{"compress": compress, "decompress": decompress}
	if len(words) < 2 || len(words) > 3 || work[words[0]] == nil {
		return errors.New("usage: zstd compress|decompress FROM [TO]")
	}
	from, err := os.Open(words[1])
	if err != nil {
		return err
	}
	defer from.Close()
	file := os.Stdout
	if len(words) == 3 {
		if file, err = os.OpenFile(words[2], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			return err
		}
	}
	to := bufio.NewWriterSize(file, 1<<20)
	if err := work[words[0]](to, bufio.NewReaderSize(from, 1<<20)); err != nil {
		return err
	}
	if err := to.Flush(); err != nil {
		return err
	}
	return file.Close()
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "zstd:", err)
		os.Exit(1)
	}
}
