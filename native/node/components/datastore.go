package components

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/k3s-io/kine/pkg/drivers/generic"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/endpoint"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"sandkube/node/files"
)

// Seed is the database that a cluster begins with; package seed makes it.
const Seed = "/usr/share/sandkube/state.db"

// How often the datastore is asked, and how long it may take to answer: pods may have taken nearly all of the machine for a
// while. Tests wait for less.
var (
	datastorePeriod   = 10 * time.Second
	datastorePatience = 5 * time.Minute
)

// The write-ahead log is cut to this many bytes when it has been written back; it grows beyond only while that is not
// possible. The database gives back what compaction frees. Both lie in memory.
const logLimit = 8 << 20

// connections is how many queries go on at once. None waits for another one: rows are read before the next is made.
const connections = 4

// parameters are kine's own (pkg/drivers/sqlite), and bounds.
var parameters = fmt.Sprintf(
	"%s&_pragma=auto_vacuum(INCREMENTAL)&_pragma=journal_size_limit(%d)", sqlite.DefaultParams, logLimit,
)

// Durable has each write on the disk before it is acknowledged, as etcd has it. To be called first.
func Durable() {
	parameters = strings.ReplaceAll(parameters, "_synchronous=NORMAL", "_synchronous=FULL")
}

func databasePath() string { return filepath.Join(datastoreFolder, "state.db") }

// Datastore runs kine with SQLite; ready is called when it serves. A seed, if it is named, is the database that a first
// start begins with. It returns why it ended.
func Datastore(ctx context.Context, seed string, ready func()) error {
	database := databasePath()
	if err := os.MkdirAll(datastoreFolder, 0o700); err != nil {
		return err
	}
	if err := plant(seed, database); err != nil {
		return err
	}
	server, err := Kine(ctx, database, DatastoreSocket)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(listenInside(&ofDatastore)) }()
	ready()
	go func() { ended <- attend(ctx) }()
	return <-ended
}

// Checkpoint writes what is in the write-ahead log back to the database, and empties the log.
func Checkpoint(ctx context.Context) error {
	database, err := sql.Open("sqlite", databasePath()+"?_pragma=busy_timeout(30000)") // modernc.org/sqlite's name
	if err != nil {
		return err
	}
	defer database.Close()
	var busy, pages, done int
	row := database.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	if err := row.Scan(&busy, &pages, &done); err != nil {
		return err
	}
	if busy != 0 {
		return fmt.Errorf("a checkpoint wrote %d of %d pages", done, pages)
	}
	return nil
}

// plant copies the seed to where no database is yet. A database that is there is whole.
func plant(seed, database string) error {
	if _, err := os.Stat(database); seed == "" || err == nil {
		return nil
	}
	data, err := os.ReadFile(seed)
	if err != nil {
		return err
	}
	return files.Replace(database, data, 0o600)
}

// Kine serves a database on a socket, "unix://PATH", by a server that may serve elsewhere too. The values are the defaults of
// kine's own command line (pkg/app, v0.16.4) and server (pkg/endpoint), which its library does not fill in where the server is
// another's; so are the parameters of the database.
func Kine(ctx context.Context, database, socket string) (*grpc.Server, error) {
	server := grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    embed.DefaultGRPCKeepAliveInterval,
			Timeout: embed.DefaultGRPCKeepAliveTimeout,
		}),
		grpc.MaxConcurrentStreams(embed.DefaultMaxConcurrentStreams),
		grpc.MaxRecvMsgSize(embed.DefaultMaxRequestBytes+512<<10),
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	_, err := endpoint.Listen(ctx, endpoint.Config{
		GRPCServer:          server,
		Endpoint:            "sqlite://" + database + "?" + parameters,
		Listener:            socket,
		NotifyInterval:      time.Minute, // the API server asks itself when a list waits for it
		EmulatedETCDVersion: "3.6.11",
		CompactTimeout:      5 * time.Second,
		CompactMinRetain:    1000,
		CompactBatchSize:    1000,
		PollBatchSize:       500,
		ConnectionPoolConfig: generic.ConnectionPoolConfig{
			// As many as a start has use for. To open SQLite takes forty system calls, and the API server begins with seventy
			// queries at once: without a bound that was a quarter of its start. They stay open.
			MaxOpen: connections,
			MaxIdle: connections,
		},
	})
	return server, err
}

// socketPath is that of a socket, "unix://PATH".
func socketPath(socket string) string {
	return strings.TrimPrefix(strings.TrimPrefix(socket, "unix:"), "//")
}

// attend returns why kine serves no more. Its library tells nobody, so it is asked by connections of our own.
func attend(ctx context.Context) error {
	for {
		if err := serves(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(datastorePeriod):
		}
	}
}

// serves asks kine, by the health service that each gRPC server of etcd has, whether it serves.
func serves(ctx context.Context) error {
	connection, err := grpc.NewClient(DatastoreSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, datastorePatience)
	defer cancel()
	answer, err := healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("it gives no answer: %w", err)
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("it says of itself %s", answer.Status)
	}
	return nil
}
