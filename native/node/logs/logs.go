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
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"unsafe"
)

// Kept is the number of lines, and of errors, of each component that are kept for a report.
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
	wrong map[string][]wrong // the last errors of a component
	names sync.Map           // label set -> component
	watch func(component, text string)
}

// wrong is an error that a goroutine logged: the whole line, and what it says.
type wrong struct{ goroutine, line, text string }

// Watch has each line passed to f as well, by the goroutine that logs it. To be called before the first line.
func (s *Sink) Watch(f func(component, text string)) { s.watch = f }

// New returns a Sink that writes to out; a file's reader may stand still.
func New(out io.Writer) *Sink {
	if file, ok := out.(*os.File); ok {
		out = newPatient(file)
	}
	return &Sink{out: out, tails: map[string][]string{}, wrong: map[string][]wrong{}}
}

// Run calls f with every line that it and its goroutines log named after component.
func (s *Sink) Run(component string, f func()) {
	pprof.Do(context.Background(), pprof.Labels("component", component), func(context.Context) {
		s.names.Store(runtime_getProfLabel(), component)
		f()
	})
}

// Running names the component of the goroutine that calls it, or is fallback.
func (s *Sink) Running(fallback string) string {
	if name, ok := s.names.Load(runtime_getProfLabel()); ok {
		return name.(string)
	}
	return fallback
}

// Component returns a writer whose lines belong to component.
func (s *Sink) Component(component string) io.Writer {
	return &writer{sink: s, component: func() string { return component }}
}

// Current returns a writer whose lines belong to the component of the goroutine that
// writes them; fallback names those of no component.
func (s *Sink) Current(fallback string) io.Writer {
	return &writer{sink: s, component: func() string { return s.Running(fallback) }}
}

// Joined returns a writer for what the Sink of another process writes: each line stays its component's. One without a
// component, such as a panic's, belongs to fallback.
func (s *Sink) Joined(fallback string) io.Writer { return s.JoinedWith(fallback, "") }

// JoinedWith is Joined with something behind the names of components, as a further node's have its number.
func (s *Sink) JoinedWith(fallback, suffix string) io.Writer {
	return &writer{sink: s, component: func() string { return fallback + suffix }, joined: true, suffix: suffix}
}

// Tail returns the last lines of a component, the first of them the error that the calling goroutine logged last, if
// others have logged so much since that it would be missing.
func (s *Sink) Tail(component string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := append([]string(nil), s.tails[component]...)
	if one := s.own(component); one != nil && !slices.Contains(lines, one.line) {
		lines[0] = one.line
	}
	return lines
}

// own is the last error of a component that the calling goroutine logged, or nil.
func (s *Sink) own(component string) *wrong {
	name, all := goroutine(), s.wrong[component]
	for at := len(all) - 1; at >= 0; at-- {
		if all[at].goroutine == name {
			return &all[at]
		}
	}
	return nil
}

// errors are lines of klog (k8s.io/klog/v2: severity, date, time, thread, place, "] ", text) and of logrus.
var errors = regexp.MustCompile(`^[EF]\d{4} .*?\] (.*)|level=(?:error|fatal) (.*)`)

// Complaint returns the last error that the goroutine which calls it logged for a component, for another one may have
// logged since; where it logged none, the component's last; without what its logger puts before it. "no reason was logged"
// if there is none.
func (s *Sink) Complaint(component string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.wrong[component]
	if len(all) == 0 {
		return "no reason was logged"
	}
	if one := s.own(component); one != nil {
		return one.text
	}
	return all[len(all)-1].text
}

// goroutine names the one that calls it, by the first line of its stack: "goroutine 18 [running]:".
func goroutine() string {
	var room [32]byte
	words := bytes.Fields(room[:runtime.Stack(room[:], false)])
	return string(words[1])
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
	if found := errors.FindSubmatch(text); found != nil {
		all := append(s.wrong[component], wrong{goroutine(), string(text), string(found[1]) + string(found[2])})
		s.wrong[component] = all[max(0, len(all)-Kept):]
	}
}

// writer cuts what it is given into lines; one without its end waits for it.
type writer struct {
	sink      *Sink
	component func() string
	joined    bool   // lines have their component before them
	suffix    string // and this is put behind it
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
		w.line(name, w.rest[:at])
		w.rest = w.rest[at+1:]
	}
	if len(w.rest) > longest {
		w.line(name, w.rest)
		w.rest = nil
	}
	return len(data), nil
}

func (w *writer) line(name string, text []byte) {
	if own, rest, found := bytes.Cut(text, []byte("\t")); w.joined && found && component.Match(own) {
		name, text = string(own)+w.suffix, rest
	}
	w.sink.line(name, text)
}

var component = regexp.MustCompile(`^[a-z][a-z-]*$`)
