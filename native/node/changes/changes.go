// Package changes has what is wanted done again whenever something that it follows from has changed.
package changes

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

// coalesce is the least time between two looks at everything: a burst of changes is one.
const coalesce = 50 * time.Millisecond

// Signal tells of changes: those that nobody has acted upon yet are one.
type Signal chan struct{}

// NewSignal returns one that has not been told of any.
func NewSignal() Signal { return make(Signal, 1) }

// Notify tells of a change, and does not wait.
func (s Signal) Notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Follow acts upon each change, of watched files too, until ctx ends. What failed is tried again at growing intervals, since
// nothing tells when it would not; failure is what the log says then.
func Follow(ctx context.Context, changed <-chan struct{}, watcher *fsnotify.Watcher, failure string, act func(context.Context) error) {
	logger := klog.FromContext(ctx)
	backoff := flowcontrol.NewBackOff(100*time.Millisecond, 10*time.Second)
	var again <-chan time.Time
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-watcher.Events:
		case err := <-watcher.Errors:
			logger.Error(err, "Watching files")
		case <-again:
		}
		// A change is acted upon at once, those that follow it after a pause, as one.
		time.Sleep(time.Until(next))
		next = time.Now().Add(coalesce)
		if err := act(ctx); err != nil {
			backoff.Next("act", time.Now())
			again = time.After(backoff.Get("act"))
			logger.Error(err, failure, "retry", backoff.Get("act"))
			continue
		}
		backoff.Reset("act")
		again = nil
	}
}
