package components

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers/generic"
	"github.com/k3s-io/kine/pkg/endpoint"
)

// DatastoreSocket is where kine serves etcd's protocol.
const DatastoreSocket = "unix:///run/sandkube/kine.sock"

const datastoreFolder = "/var/lib/sandkube"

// Datastore starts kine with SQLite; it serves when this returns. The values are the defaults
// of kine's own command line (pkg/app, v0.16.4), which its library does not fill in.
func Datastore(ctx context.Context, running *sync.WaitGroup) error {
	if err := os.MkdirAll(datastoreFolder, 0o700); err != nil {
		return err
	}
	// With its default data source name kine puts the database into ./db; one
	// given without a busy timeout fails with "database is locked".
	if err := os.Chdir(datastoreFolder); err != nil {
		return err
	}
	_, err := endpoint.Listen(ctx, endpoint.Config{
		WaitGroup:           running,
		Listener:            DatastoreSocket,
		NotifyInterval:      5 * time.Second,
		EmulatedETCDVersion: "3.6.11",
		CompactTimeout:      5 * time.Second,
		CompactMinRetain:    1000,
		CompactBatchSize:    1000,
		PollBatchSize:       500,
		ConnectionPoolConfig: generic.ConnectionPoolConfig{
			MaxIdle:     20, // of its library: with the 2 of its command line, each further query opens SQLite anew
			MaxIdleTime: 2 * time.Minute,
		},
	})
	return err
}
