// Package stages tells the host how far the node is: one JSON object a line
// on standard output, which is a pipe.
//
// Shapes:
//
//	{"type":"stage","stage":"containerd","seconds":0.31}
//	{"type":"credentials","kubeconfig":"…"}
//	{"type":"failed","component":"kubelet","error":"…","log":["…"]}
//
// Seconds count from the start of this program.
package stages

import (
	"encoding/json"
	"io"
	"math"
	"sync"
	"time"
)

// Line is one message; which fields are set depends on Type.
type Line struct {
	Type       string   `json:"type"`
	Stage      string   `json:"stage,omitempty"`
	Seconds    *float64 `json:"seconds,omitempty"`
	Kubeconfig string   `json:"kubeconfig,omitempty"`
	Component  string   `json:"component,omitempty"`
	Error      string   `json:"error,omitempty"`
	Log        []string `json:"log,omitempty"`
}

// Reporter writes lines; safe for concurrent use.
type Reporter struct {
	mu      sync.Mutex
	out     io.Writer
	started time.Time
	now     func() time.Time
}

// New returns a Reporter that counts from started.
func New(out io.Writer, started time.Time, now func() time.Time) *Reporter {
	return &Reporter{out: out, started: started, now: now}
}

// Reached reports that a stage is complete.
func (r *Reporter) Reached(stage string) {
	seconds := math.Round(r.now().Sub(r.started).Seconds()*1000) / 1000
	r.write(Line{Type: "stage", Stage: stage, Seconds: &seconds})
}

// Credentials hands the administrator's kubeconfig to the host.
func (r *Reporter) Credentials(kubeconfig []byte) {
	r.write(Line{Type: "credentials", Kubeconfig: string(kubeconfig)})
}

// Failed reports the component that takes the node down, with its last log lines.
func (r *Reporter) Failed(component string, err error, log []string) {
	r.write(Line{Type: "failed", Component: component, Error: err.Error(), Log: log})
}

func (r *Reporter) write(line Line) {
	data, err := json.Marshal(line)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.out.Write(append(data, '\n'))
}
