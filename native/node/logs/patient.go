package logs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long one line waits for a reader. Those after it wait no more, until there is room again.
var patience = 2 * time.Second

// piece is what a pipe takes at once that poll(2) says is ready (pipe(7), PIPE_BUF).
const piece = 4096

// fileLimit bounds a log that is a file, as that of a node in place; the older half goes at a time.
var fileLimit int64 = 16 << 20

// patient writes lines to a pipe whose reader may stand still, as a stopped supervisor does: then lines are lost, and
// counted, since whoever logs must not stand still with it. A file is kept from growing without an end.
type patient struct {
	file    *os.File
	regular bool
	lost    int
	cut     bool // of the last line only the beginning was written
}

func newPatient(file *os.File) *patient {
	info, err := file.Stat()
	return &patient{file: file, regular: err == nil && info.Mode().IsRegular()}
}

func (p *patient) Write(line []byte) (int, error) {
	wait := patience
	if p.lost > 0 {
		wait = 0
		said := fmt.Sprintf("node\t%d lines were lost here: nobody read them\n", p.lost)
		if p.cut {
			said = "\n" + said
		}
		if !p.put([]byte(said), wait) {
			p.lost++
			return len(line), nil
		}
		p.lost, p.cut = 0, false
	}
	for rest := line; len(rest) > 0; {
		part := rest[:min(piece, len(rest))]
		if !p.put(part, wait) {
			p.lost++
			p.cut = len(rest) < len(line)
			break
		}
		rest = rest[len(part):]
	}
	if p.regular {
		p.shorten()
	}
	return len(line), nil
}

// shorten takes the older half away of a file that is full, which can be read as well: else it stays as it is.
func (p *patient) shorten() {
	end, err := p.file.Seek(0, io.SeekCurrent)
	if err != nil || end <= fileLimit {
		return
	}
	kept := make([]byte, fileLimit/2)
	if _, err := p.file.ReadAt(kept, end-int64(len(kept))); err != nil {
		return
	}
	kept = kept[bytes.IndexByte(kept, '\n')+1:]
	if _, err := p.file.WriteAt(kept, 0); err == nil && p.file.Truncate(int64(len(kept))) == nil {
		_, _ = p.file.Seek(int64(len(kept)), io.SeekStart)
	}
}

// put writes what a pipe takes at once, if it does so within a time.
func (p *patient) put(part []byte, wait time.Duration) bool {
	for end := time.Now().Add(wait); ; {
		state := []unix.PollFd{{Fd: int32(p.file.Fd()), Events: unix.POLLOUT}}
		ready, err := unix.Poll(state, int(max(0, time.Until(end)).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err == nil && ready == 0 {
			return false
		}
		_, _ = p.file.Write(part) // an error is nothing that a log could tell of
		return true
	}
}
