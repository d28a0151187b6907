package units_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sandkube/node/units"
)

// told is what an observer heard, in order.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (t *told) add(format string, values ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, values...))
}

func (t *told) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lines)
}

func (t *told) observer() units.Observer {
	return units.Observer{
		Reached: func(unit string) { t.add("reached %s", unit) },
		Failed:  func(owner string, err error) { t.add("failed %s: %v", owner, err) },
		Again:   func(owner string, err error) { t.add("again %s: %v", owner, err) },
		Within:  func(_ string, f func()) { f() },
	}
}

// run starts a table with time that stands still while anything can go on, and returns what was told until a time.
func run(t *testing.T, until time.Duration, table ...units.Unit) []string {
	t.Helper()
	var heard told
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		if err := units.Start(ctx, table, heard.observer()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(until)
		synctest.Wait()
		cancel()
		synctest.Wait()
	})
	return heard.all()
}

func done(context.Context) error { return nil }

func after(pause time.Duration, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(pause):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// service is ready after one time and ends after another.
func service(ready, end time.Duration, err error) func(context.Context, func()) error {
	return func(ctx context.Context, tell func()) error {
		timer := time.AfterFunc(ready, tell)
		defer timer.Stop()
		return after(end, err)(ctx)
	}
}

const never = 1000 * time.Hour

var errBroken = errors.New("broken")

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told:\n  %s\nwanted:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestAUnitStartsWhenItsNeedsAreReady(t *testing.T) {
	check(t, run(t, time.Hour,
		units.Unit{Name: "slow", Do: after(3*time.Second, nil)},
		units.Unit{Name: "quick", Do: after(time.Second, nil)},
		units.Unit{Name: "service", Needs: []string{"quick"}, Run: service(time.Second, never, nil)},
		units.Unit{Name: "both", Needs: []string{"slow", "service"}, Do: done},
	), "reached quick", "reached service", "reached slow", "reached both")
}

func TestAServiceIsReadyWhenSomethingElseSaysSo(t *testing.T) {
	check(t, run(t, time.Hour,
		units.Unit{Name: "api", Run: service(0, never, nil), Ready: after(time.Minute, nil)},
		units.Unit{Name: "clock", Do: after(time.Second, nil)},
	), "reached clock", "reached api")
}

func TestWhatIsSilentIsAwaitedAndNotTold(t *testing.T) {
	check(t, run(t, time.Hour,
		units.Unit{Name: "quiet", Silent: true, Do: done},
		units.Unit{Name: "loud", Needs: []string{"quiet"}, Do: done},
	), "reached loud")
}

func TestAnEndIsTold(t *testing.T) {
	for name, one := range map[string]struct {
		unit units.Unit
		want []string
	}{
		"a task that fails":            {units.Unit{Name: "x", Owner: "node", Do: after(0, errBroken)}, []string{"failed node: x: broken"}},
		"a service before it is ready": {units.Unit{Name: "x", Run: service(never, time.Second, errBroken)}, []string{"failed x: broken"}},
		"a service with an owner":      {units.Unit{Name: "x", Owner: "o", Run: service(0, time.Second, errBroken)}, []string{"reached x", "failed o: broken"}},
		"a service that says nothing":  {units.Unit{Name: "x", Run: service(0, time.Second, nil)}, []string{"reached x", "failed x: ended by itself"}},
		"readiness that fails": {
			units.Unit{Name: "x", Owner: "o", Run: service(0, never, nil), Ready: after(time.Second, errBroken)}, []string{"failed o: x: broken"},
		},
	} {
		t.Run(name, func(t *testing.T) { check(t, run(t, time.Hour, one.unit), one.want...) })
	}
}

func TestAMissedDeadlineNamesWhoOwesIt(t *testing.T) {
	check(t, run(t, time.Hour,
		units.Unit{Name: "first", Do: after(time.Minute, nil)},
		units.Unit{Name: "ready", Owner: "kubelet", Needs: []string{"first"}, Deadline: 30 * time.Second, Run: service(0, never, nil), Ready: after(never, nil)},
	), "reached first", "failed kubelet: ready: not there within 30s")
}

func TestADeadlineThatIsMetIsForgotten(t *testing.T) {
	check(t, run(t, time.Hour,
		units.Unit{Name: "x", Deadline: 30 * time.Second, Do: after(29*time.Second, nil)},
		units.Unit{Name: "y", Deadline: 30 * time.Second, Run: service(29500*time.Millisecond, never, nil)},
	), "reached x", "reached y")
}

func TestWhatMayIsStartedAgain(t *testing.T) {
	starts := 0
	heard := run(t, time.Hour, units.Unit{Name: "x", Again: true, Run: func(ctx context.Context, ready func()) error {
		if starts++; starts < 3 {
			return service(0, time.Second, errBroken)(ctx, ready)
		}
		return service(0, never, nil)(ctx, ready)
	}})
	check(t, heard, "reached x", "again x: broken", "again x: broken")
}

func TestWhatEndsAgainAndAgainFails(t *testing.T) {
	heard := run(t, time.Hour, units.Unit{Name: "x", Again: true, Run: service(0, time.Second, errBroken)})
	check(t, heard, "reached x", "again x: broken", "again x: broken", "again x: broken", "again x: broken", "failed x: broken")
}

func TestEndsThatAreFarApartAreForgiven(t *testing.T) {
	heard := run(t, 24*time.Hour, units.Unit{Name: "x", Again: true, Run: service(0, time.Hour, errBroken)})
	if len(heard) < 20 || slices.Contains(heard, "failed x: broken") {
		t.Errorf("told: %q", heard)
	}
}

func TestATableIsJudged(t *testing.T) {
	for want, table := range map[string][]units.Unit{
		"unit b: it needs c, which is no earlier one": {{Name: "a", Do: done}, {Name: "b", Needs: []string{"a", "c"}, Do: done}, {Name: "c", Do: done}},
		"unit a: it is there twice":                   {{Name: "a", Do: done}, {Name: "a", Do: done}},
		"unit a: either a task or a service":          {{Name: "a"}},
		"unit a: a task is ready when it ends":        {{Name: "a", Do: done, Again: true}},
	} {
		if err := units.Start(t.Context(), table, units.Observer{}); err == nil || err.Error() != want {
			t.Errorf("%v, wanted %s", err, want)
		}
	}
}
