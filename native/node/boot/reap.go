package boot

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Reap waits for orphans as the first process of a machine must, until ctx
// ends. Children of our own are waited for by os/exec, which would lose their
// exit status to a wait for any child; so a zombie counts as an orphan once
// nobody has waited for it during a whole period. It looks only while there are zombies.
func Reap(ctx context.Context, period time.Duration) {
	before := map[int]bool{}
	for {
		if len(before) == 0 {
			awaitZombie(ctx, period)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(period):
		}
		now := map[int]bool{}
		for _, pid := range zombies() {
			if before[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
				continue
			}
			now[pid] = true
		}
		before = now
	}
}

// awaitZombie returns when a child has ended, leaving it to whoever waits for it, or ctx ended.
func awaitZombie(ctx context.Context, period time.Duration) {
	found := make(chan bool, 1)
	go func() {
		for {
			err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil { // there are no children: nothing tells of the first
				time.Sleep(period)
			}
			found <- true
			return
		}
	}()
	select {
	case <-found:
	case <-ctx.Done():
	}
}

// zombies lists the children of this process that ended and were not waited for.
func zombies() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	self := strconv.Itoa(os.Getpid())
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		// proc(5): "PID (NAME) STATE PPID …"; NAME may hold anything, so look behind its last bracket.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == self {
			found = append(found, pid)
		}
	}
	return found
}
