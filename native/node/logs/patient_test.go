package logs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// One line waits for a reader that stands still, in vain; those after it are lost at once, and counted. No line that is read is
// a part of one, but for the last that was begun.
func TestAReaderThatStandsStill(t *testing.T) {
	before := patience
	patience = 50 * time.Millisecond
	defer func() { patience = before }()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sink := New(writer)
	log := sink.Component("kubelet")
	const all = 2000
	long := strings.Repeat("x", 6000)
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for at := range all {
			fmt.Fprintf(log, "%d %s\n", at, long)
		}
	}()
	select {
	case <-logged:
	case <-time.After(time.Minute):
		t.Fatal("those who log stand still with the reader")
	}
	if tail := sink.Tail("kubelet"); len(tail) != Kept || !strings.HasPrefix(tail[Kept-1], fmt.Sprint(all-1)) {
		t.Error("what was lost is missing in a report, too")
	}
	lines := make(chan string, all)
	go func() {
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			lines <- scanner.Text()
		}
		close(lines)
	}()
	for len(lines) == 0 { // until there is room again
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	fmt.Fprintln(log, "after")
	_ = writer.Close()
	var whole, lost, cut int
	last := ""
	for line := range lines {
		switch {
		case strings.HasSuffix(line, "lines were lost here: nobody read them"):
			if _, err := fmt.Sscanf(line, "node\t%d lines", &lost); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		case line == fmt.Sprintf("kubelet\t%d %s", whole, long):
			whole++
		case line != "" && strings.HasPrefix(fmt.Sprintf("kubelet\t%d %s", whole, long), line):
			cut++
		}
		last = line
	}
	if whole+lost != all || whole == 0 || lost == 0 || cut > 1 || last != "kubelet\tafter" {
		t.Errorf("%d whole, %d lost, %d cut, at last %.80q", whole, lost, cut, last)
	}
}

func TestAReaderThatIsSlowLosesNothing(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log := New(writer).Component("kubelet")
	const all = 300
	go func() {
		for at := range all {
			fmt.Fprintf(log, "%d %s\n", at, strings.Repeat("x", 10_000))
		}
		_ = writer.Close()
	}()
	count := 0
	for scanner := bufio.NewScanner(reader); scanner.Scan(); count++ {
		if count%10 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if want := fmt.Sprintf("kubelet\t%d x", count); !strings.HasPrefix(scanner.Text(), want) || len(scanner.Text()) < 10_000 {
			t.Fatalf("line %d is %.80q", count, scanner.Text())
		}
	}
	if count != all {
		t.Errorf("%d lines", count)
	}
}

// A log that is a file has an end: the newest lines are there, each of them whole.
func TestAFileIsBounded(t *testing.T) {
	before := fileLimit
	fileLimit = 10_000
	defer func() { fileLimit = before }()
	path := filepath.Join(t.TempDir(), "log")
	const all = 5000
	for name, flags := range map[string]int{"read and written": os.O_RDWR, "written only": os.O_WRONLY} {
		file, err := os.OpenFile(path, flags|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		log := New(file).Component("kubelet")
		for at := range all {
			fmt.Fprintf(log, "line %d\n", at)
			if info, _ := file.Stat(); flags == os.O_RDWR && info.Size() > fileLimit {
				t.Fatalf("%s: %d bytes", name, info.Size())
			}
		}
		_ = file.Close()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		if len(lines) < 200 || len(lines) < all && flags == os.O_WRONLY {
			t.Errorf("%s: %d lines", name, len(lines))
		}
		for at, line := range lines {
			if want := fmt.Sprintf("kubelet\tline %d", all-len(lines)+at); line != want {
				t.Fatalf("%s: %q, not %q", name, line, want)
			}
		}
	}
}
