package stages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// at returns a Reporter whose clock tells these moments after start in turn.
func at(out io.Writer, moments ...time.Duration) *Reporter {
	return New(out, start, func() time.Time {
		now := start.Add(moments[0])
		moments = moments[1:]
		return now
	})
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	r := at(&out, 0, 1499*time.Microsecond, 1500*time.Microsecond, 61*time.Second)
	r.Reached("mounts")
	r.Reached("settings")
	r.Reached("network")
	r.Credentials([]byte("a: \"b\"\nc: <d>\n"))
	r.Failed("kubelet", errors.New("no disk"), []string{"one", "two\x1b"})
	r.Failed("apiserver", errors.New("no log"), nil)
	r.Reached("ready")
	want := `{"type":"stage","stage":"mounts","seconds":0}
{"type":"stage","stage":"settings","seconds":0.001}
{"type":"stage","stage":"network","seconds":0.002}
{"type":"credentials","kubeconfig":"a: \"b\"\nc: \u003cd\u003e\n"}
{"type":"failed","component":"kubelet","error":"no disk","log":["one","two\u001b"]}
{"type":"failed","component":"apiserver","error":"no log"}
{"type":"stage","stage":"ready","seconds":61}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// Every stage has its time, also one that is reached at once: the host prints it.
func TestSecondsAreAlwaysThere(t *testing.T) {
	var out bytes.Buffer
	at(&out, 0).Reached("mounts")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if seconds, there := line["seconds"]; !there || seconds != 0.0 {
		t.Errorf("seconds of %s: %v, %v", out.String(), seconds, there)
	}
}

// whole counts writes that are not one whole line, or that come during another one.
type whole struct {
	lines  []string
	torn   int
	inside atomic.Int32
}

func (w *whole) Write(data []byte) (int, error) {
	defer w.inside.Add(-1)
	if w.inside.Add(1) > 1 {
		return 0, errors.New("written to by two at once") // its line is missed below
	}
	runtime.Gosched()
	text, found := strings.CutSuffix(string(data), "\n")
	if !found || strings.Contains(text, "\n") {
		w.torn++
	}
	w.lines = append(w.lines, text)
	return len(data), nil
}

func TestManyAtOnce(t *testing.T) {
	const goroutines, each = 20, 50
	out := &whole{}
	r := New(out, start, func() time.Time { return start })
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			for n := range each {
				r.Reached(fmt.Sprintf("%d/%d", g, n))
			}
		})
	}
	group.Wait()
	if out.torn > 0 || len(out.lines) != goroutines*each {
		t.Fatalf("%d writes, %d of them no whole line", len(out.lines), out.torn)
	}
	next := make([]int, goroutines)
	for _, text := range out.lines {
		var line Line
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var g, n int
		if _, err := fmt.Sscanf(line.Stage, "%d/%d", &g, &n); err != nil {
			t.Fatal(err)
		}
		if n != next[g] {
			t.Fatalf("goroutine %d: stage %d came when %d was due", g, n, next[g])
		}
		next[g]++
	}
	if slices.Min(next) != each {
		t.Errorf("stages are missing: %v", next)
	}
}
