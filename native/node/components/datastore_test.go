package components

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// said is a health service that answers by what it is told.
type said struct {
	healthpb.UnimplementedHealthServer
	ended atomic.Bool
}

func (s *said) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if s.ended.Load() {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// serveHealth is a server that says of itself whether it serves, where kine would be.
func serveHealth(t *testing.T) (*grpc.Server, *said) {
	t.Helper()
	listener, err := net.Listen("unix", strings.TrimPrefix(DatastoreSocket, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	server, own := grpc.NewServer(), &said{}
	healthpb.RegisterHealthServer(server, own)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return server, own
}

func impatient(t *testing.T) {
	t.Helper()
	period, patience := datastorePeriod, datastorePatience
	datastorePeriod, datastorePatience = 10*time.Millisecond, time.Second
	t.Cleanup(func() { datastorePeriod, datastorePatience = period, patience })
}

// Nothing tells of the end of kine's server but that it does not answer, or says so.
func TestTheEndOfTheDatastoreIsSeen(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(*grpc.Server, *said)
		told string
	}{
		"it is gone":        {func(server *grpc.Server, _ *said) { server.Stop() }, "it gives no answer: "},
		"it serves no more": {func(_ *grpc.Server, own *said) { own.ended.Store(true) }, "it says of itself NOT_SERVING"},
	} {
		t.Run(name, func(t *testing.T) {
			under(t)
			impatient(t)
			server, own := serveHealth(t)
			ended := make(chan error, 1)
			go func() { ended <- attend(t.Context()) }()
			select {
			case err := <-ended:
				t.Fatalf("it serves, and is told to have ended: %v", err)
			case <-time.After(200 * time.Millisecond): // many looks
			}
			end.by(server, own)
			select {
			case err := <-ended:
				if err == nil || !strings.HasPrefix(err.Error(), end.told) {
					t.Errorf("told %v", err)
				}
			case <-time.After(time.Minute):
				t.Error("nobody noticed")
			}
		})
	}
}

// The node's own settings of kine have that health service.
func TestKineSaysThatItServes(t *testing.T) {
	folder := under(t)
	impatient(t)
	datastorePatience = time.Minute
	if _, err := Kine(t.Context(), filepath.Join(folder, "state.db"), DatastoreSocket); err != nil {
		t.Fatal(err)
	}
	if err := serves(t.Context()); err != nil {
		t.Error(err)
	}
	if err := Checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
}
