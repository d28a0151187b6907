package logs

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestLinesAreNamedByGoroutine(t *testing.T) {
	var out bytes.Buffer
	sink := New(&out)
	shared := sink.Current("node")
	fmt.Fprintln(shared, "before")
	var group sync.WaitGroup
	for _, name := range []string{"kubelet", "apiserver"} {
		group.Add(1)
		go sink.Run(name, func() {
			inner := make(chan struct{})
			go func() {
				fmt.Fprintf(shared, "from %s\n", name)
				close(inner)
			}()
			<-inner
			group.Done()
		})
	}
	group.Wait()
	for _, want := range []string{"node\tbefore\n", "kubelet\tfrom kubelet\n", "apiserver\tfrom apiserver\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
}

func TestTailKeepsTheLastLinesWhole(t *testing.T) {
	var out bytes.Buffer
	sink := New(&out)
	w := sink.Component("containerd")
	for at := range Kept + 5 {
		fmt.Fprintf(w, "li")
		fmt.Fprintf(w, "ne %d\n", at)
	}
	tail := sink.Tail("containerd")
	if len(tail) != Kept || tail[0] != "line 5" || tail[Kept-1] != fmt.Sprintf("line %d", Kept+4) {
		t.Errorf("got %q", tail)
	}
}

// What ends the process is the last error of the goroutine that ends it, whatever others of its component logged after it.
func TestComplaint(t *testing.T) {
	var out bytes.Buffer
	sink := New(&out)
	if got := sink.Running("node"); got != "node" {
		t.Errorf("outside of all components: %q", got)
	}
	sink.Run("kubelet", func() {
		w := sink.Current("node")
		fmt.Fprintln(w, `E0905 10:00:00.000000     123 kubelet.go:1] "First" err="old"`)
		fmt.Fprintln(w, `F0905 10:00:00.000000     123 kubelet.go:1703] "Failed to start" err="mkdir [x] y: read-only"`)
		fmt.Fprintln(w, `I0905 10:00:00.000000     123 kubelet.go:1704] E0905 is no error`)
		other := make(chan struct{})
		go func() {
			defer close(other)
			fmt.Fprintln(w, `E0905 10:00:00.000000     123 node.go:404] "Another thread's" err="node not found"`)
		}()
		<-other
		for range Kept {
			fmt.Fprintln(w, "I0905 10:00:00.000000     123 kubelet.go:1704] more")
		}
		if tail := sink.Tail("kubelet"); len(tail) != Kept || !strings.Contains(tail[0], "Failed to start") {
			t.Errorf("without the error: %q", tail)
		}
		if got := sink.Running("node"); got != "kubelet" {
			t.Errorf("runs as %q", got)
		}
	})
	fmt.Fprintln(sink.Component("datastore"), `time="2026-01-01T00:00:00Z" level=fatal msg="no disk"`)
	for component, want := range map[string]string{
		"kubelet":   `"Failed to start" err="mkdir [x] y: read-only"`,
		"datastore": `msg="no disk"`,
		"apiserver": "no reason was logged",
	} {
		if got := sink.Complaint(component); got != want {
			t.Errorf("%s: %q", component, got)
		}
	}
	elsewhere := make(chan string)
	go func() { elsewhere <- sink.Complaint("kubelet") }()
	if got := <-elsewhere; got != `"Another thread's" err="node not found"` {
		t.Errorf("of a goroutine that logged nothing: %q", got)
	}
}
