package logs

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long one line waits for a reader. Those after it wait no more, until there is room again.
var patience = 2 * time.Second

// piece is what a pipe takes at once that poll(2) says is ready (pipe(7), PIPE_BUF).
const piece = 4096

// patient writes lines to a pipe whose reader may stand still, as a stopped supervisor does: then lines are lost, and
// counted, since whoever logs must not stand still with it.
type patient struct {
	file *os.File
	lost int
	cut  bool // of the last line only the beginning was written
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
	return len(line), nil
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
