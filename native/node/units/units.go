// Package units starts what a node is made of: each unit as soon as what it needs is ready.
//
// The boot is a table of them. A table is in an order in which none needs a later one.
package units

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Unit is a part of the node. One with Do is a task, ready when that returns; one with Run goes on for the node's life.
type Unit struct {
	Name     string
	Owner    string        // the component whose log tells why it is not ready; Name if empty
	Needs    []string      // names of earlier units
	Deadline time.Duration // from the moment when what it needs is ready; none if 0
	Silent   bool          // no stage that anybody waits for

	Do    func(context.Context) error
	Run   func(ctx context.Context, ready func()) error
	Ready func(context.Context) error // if set, a unit with Run is ready when this returns

	// Again says that a unit that ends is started again, for what it does is missed but not lost meanwhile.
	Again bool
}

func (u *Unit) owner() string {
	if u.Owner != "" {
		return u.Owner
	}
	return u.Name
}

// Observer is told what happens; its functions are called from many goroutines.
type Observer struct {
	Reached func(unit string)                    // once a unit
	Failed  func(owner string, err error)        // the table cannot go on
	Again   func(owner string, err error)        // a unit ended and is started again
	Within  func(owner string, f func())         // calls f on behalf of a component
	Pause   func(context.Context, time.Duration) // between an end and the next start; a timer if nil
}

// Times of a unit that is started again: the pause grows with each end, and one that ended as often as Ends
// within Window fails.
const (
	FirstPause = 200 * time.Millisecond
	Ends       = 5
	Window     = 2 * time.Minute
)

// errEnded is why a unit ended that should not have, and gave no reason.
var errEnded = errors.New("ended by itself")

// Check says what is wrong with a table.
func Check(table []Unit) error {
	earlier := map[string]bool{}
	for _, unit := range table {
		if (unit.Do == nil) == (unit.Run == nil) {
			return fmt.Errorf("unit %s: either a task or a service", unit.Name)
		}
		if unit.Do != nil && (unit.Ready != nil || unit.Again) {
			return fmt.Errorf("unit %s: a task is ready when it ends", unit.Name)
		}
		for _, name := range unit.Needs {
			if !earlier[name] {
				return fmt.Errorf("unit %s: it needs %s, which is no earlier one", unit.Name, name)
			}
		}
		if earlier[unit.Name] {
			return fmt.Errorf("unit %s: it is there twice", unit.Name)
		}
		earlier[unit.Name] = true
	}
	return nil
}

// Start starts a table and returns; the observer hears of the rest. ctx ends the tasks and services.
func Start(ctx context.Context, table []Unit, observer Observer) error {
	if err := Check(table); err != nil {
		return err
	}
	if observer.Pause == nil {
		observer.Pause = pause
	}
	ready := make(map[string]chan struct{}, len(table))
	for _, unit := range table {
		ready[unit.Name] = make(chan struct{})
	}
	for at := range table {
		unit := &table[at]
		one := &running{Unit: unit, observer: observer}
		one.reached = sync.OnceFunc(func() {
			if !unit.Silent {
				observer.Reached(unit.Name)
			}
			close(ready[unit.Name])
		})
		one.ready = ready[unit.Name]
		go observer.Within(unit.owner(), func() {
			for _, name := range unit.Needs {
				select {
				case <-ready[name]:
				case <-ctx.Done():
					return
				}
			}
			one.start(ctx)
		})
	}
	return nil
}

// running is a unit whose needs are met.
type running struct {
	*Unit
	observer Observer
	ready    <-chan struct{}
	reached  func()
}

func (r *running) start(ctx context.Context) {
	if r.Deadline > 0 {
		timer := time.AfterFunc(r.Deadline, func() { r.observer.Within(r.owner(), func() { r.late(ctx) }) })
		go func() {
			select {
			case <-r.ready:
			case <-ctx.Done():
			}
			timer.Stop()
		}()
	}
	if r.Do != nil {
		if err := r.Do(ctx); err != nil {
			r.owe(ctx, err)
			return
		}
		r.reached()
		return
	}
	ready := r.reached
	if r.Ready != nil {
		ready = func() {}
		go r.observer.Within(r.owner(), func() {
			if err := r.Ready(ctx); err != nil {
				r.owe(ctx, err)
				return
			}
			r.reached()
		})
	}
	r.serve(ctx, ready)
}

// serve runs a service, and again if it may.
func (r *running) serve(ctx context.Context, ready func()) {
	var ends []time.Time
	for {
		err := r.Run(ctx, ready)
		if err == nil {
			err = errEnded
		}
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		ends = append(slices.DeleteFunc(ends, func(end time.Time) bool { return now.Sub(end) > Window }), now)
		if !r.Again || !r.isReady() || len(ends) >= Ends {
			r.fail(ctx, err)
			return
		}
		r.observer.Again(r.owner(), err)
		r.observer.Pause(ctx, FirstPause<<(len(ends)-1))
	}
}

func (r *running) isReady() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}

func (r *running) late(ctx context.Context) {
	if !r.isReady() {
		r.owe(ctx, fmt.Errorf("not there within %s", r.Deadline))
	}
}

// owe fails for a stage that does not come; fail for a component that ended.
func (r *running) owe(ctx context.Context, err error) {
	if r.owner() != r.Name {
		err = fmt.Errorf("%s: %w", r.Name, err)
	}
	r.fail(ctx, err)
}

func (r *running) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		r.observer.Failed(r.owner(), err)
	}
}

func pause(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}
