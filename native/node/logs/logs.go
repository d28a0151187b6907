// Package logs gives each component of the one process its own log.
//
// Every line leaves as `component<TAB>text`. The libraries of Kubernetes share
// one logger, so a line's component is found by the label of the goroutine
// that writes it: labels are inherited by every goroutine that one starts.
package logs

import (
	"bytes"
	"context"
	"io"
	"runtime/pprof"
	"sync"
	"unsafe"
)

// Kept is the number of lines of each component that are kept for a report.
const Kept = 20

const longest = 16 << 10

// runtime_getProfLabel returns the label set of the running goroutine. It is
// one of the names that the runtime keeps for users of linkname (go.dev/issue/67401).
//
//go:linkname runtime_getProfLabel runtime/pprof.runtime_getProfLabel
func runtime_getProfLabel() unsafe.Pointer

// Sink joins the logs of all components in one stream.
type Sink struct {
	mu    sync.Mutex
	out   io.Writer
	tails map[string][]string
	names sync.Map // label set -> component
	watch func(component, text string)
}

// Watch has each line passed to f as well, by the goroutine that logs it. To be called before the first line.
func (s *Sink) Watch(f func(component, text string)) { s.watch = f }

// New returns a Sink that writes to out.
func New(out io.Writer) *Sink {
	return &Sink{out: out, tails: map[string][]string{}}
}

// Run calls f with every line that it and its goroutines log named after component.
func (s *Sink) Run(component string, f func()) {
	pprof.Do(context.Background(), pprof.Labels("component", component), func(context.Context) {
		s.names.Store(runtime_getProfLabel(), component)
		f()
	})
}

// Component returns a writer whose lines belong to component.
func (s *Sink) Component(component string) io.Writer {
	return &writer{sink: s, component: func() string { return component }}
}

// Current returns a writer whose lines belong to the component of the goroutine that
// writes them; fallback names those of no component.
func (s *Sink) Current(fallback string) io.Writer {
	return &writer{sink: s, component: func() string {
		if name, ok := s.names.Load(runtime_getProfLabel()); ok {
			return name.(string)
		}
		return fallback
	}}
}

// Tail returns the last lines of a component.
func (s *Sink) Tail(component string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.tails[component]...)
}

func (s *Sink) line(component string, text []byte) {
	s.keep(component, text)
	if s.watch != nil {
		s.watch(component, string(text))
	}
}

func (s *Sink) keep(component string, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.out.Write([]byte(component + "\t" + string(text) + "\n"))
	tail := append(s.tails[component], string(text))
	s.tails[component] = tail[max(0, len(tail)-Kept):]
}

// writer cuts what it is given into lines; one without its end waits for it.
type writer struct {
	sink      *Sink
	component func() string
	mu        sync.Mutex
	rest      []byte
}

func (w *writer) Write(data []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := w.component()
	w.rest = append(w.rest, data...)
	for {
		at := bytes.IndexByte(w.rest, '\n')
		if at < 0 {
			break
		}
		w.sink.line(name, w.rest[:at])
		w.rest = w.rest[at+1:]
	}
	if len(w.rest) > longest {
		w.sink.line(name, w.rest)
		w.rest = nil
	}
	return len(data), nil
}
