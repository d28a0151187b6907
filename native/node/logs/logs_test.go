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
