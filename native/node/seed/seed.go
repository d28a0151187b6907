// Package seed makes the database that every cluster begins with: what an API server writes into an empty one, but for
// what belongs to one cluster alone. It asks a real API server, so that it is what that version of Kubernetes makes.
package seed

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/tools/clientcmd"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	"sandkube/node/components"
	"sandkube/node/fixes"
	"sandkube/node/manifests"
	"sandkube/node/pki"
	"sandkube/node/settings"
)

// How often it is asked whether everything is there, and for how long nothing may have changed then.
const (
	period = 200 * time.Millisecond
	calm   = time.Second
)

// Make writes the seed. The API server that it asks runs in this process, which is of no use for anything else then;
// log gets what that says.
func Make(ctx context.Context, path, manifestFolder string, log io.Writer) error {
	folder, err := os.MkdirTemp("", "seed")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	components.Under(folder)
	failed := make(chan error, 2)
	if err := serve(ctx, failed, log); err != nil {
		return err
	}
	made := make(chan error, 1)
	go func() { made <- write(ctx, path, folder, manifestFolder) }()
	select {
	case err := <-failed:
		return err
	case err := <-made:
		return err
	}
}

// serve starts a datastore that is empty, and an API server; failed gets why one of them ended.
func serve(ctx context.Context, failed chan<- error, log io.Writer) error {
	listener, err := components.ListenOn(nil, "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err = components.Credentials(cluster.Default, "https://"+listener.Addr().String()); err != nil {
		return err
	}
	kubernetes, err := components.New(ctx, cluster.Default, settings.Settings{}, log)
	if err != nil {
		return err
	}
	serves := make(chan struct{})
	go func() {
		failed <- fmt.Errorf("datastore: %w", components.Datastore(ctx, "", func() { close(serves) }))
	}()
	go func() {
		<-serves
		failed <- fmt.Errorf("apiserver: %w", kubernetes.APIServer(ctx, listener))
	}()
	return nil
}

func write(ctx context.Context, path, folder, manifestFolder string) error {
	admin, err := clientcmd.BuildConfigFromFlags("", components.Kubeconfig(pki.Admin))
	if err != nil {
		return err
	}
	if err := components.APIHealthy(ctx, admin); err != nil {
		return err
	}
	filled := filepath.Join(folder, "manifests")
	if err := boot.Render(fixes.Plan{}, cluster.Default, manifestFolder, filled); err != nil {
		return err
	}
	sets, err := manifests.Read(filled)
	if err != nil {
		return err
	}
	if err := manifests.Deploy(ctx, admin, sets); err != nil {
		return err
	}
	rows, err := settled(ctx)
	if err != nil {
		return err
	}
	return store(ctx, rows, path, folder)
}

// settled returns what an API server leaves in its datastore when it is done, by key.
func settled(ctx context.Context) (map[string][]byte, error) {
	client, err := connect(components.DatastoreSocket)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var last map[string][]byte
	var since time.Time
	for {
		rows, missing, err := gather(ctx, client)
		if err != nil {
			return nil, err
		}
		if same := maps.EqualFunc(rows, last, bytes.Equal); !same || missing != "" {
			last, since = rows, time.Now()
		}
		if time.Since(since) >= calm {
			return rows, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), fmt.Errorf("missing is %s", missing))
		case <-time.After(period):
		}
	}
}

func connect(socket string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{socket}, DialTimeout: time.Minute})
}

// gather reads the datastore; missing says what has yet to come.
func gather(ctx context.Context, client *clientv3.Client) (rows map[string][]byte, missing string, err error) {
	answer, err := client.Get(ctx, "/registry/", clientv3.WithPrefix())
	if err != nil {
		return nil, "", err
	}
	rows, found := map[string][]byte{}, map[string]bool{}
	var faults []error
	for _, each := range answer.Kvs {
		kind, shared, err := kindOf(string(each.Key))
		if err != nil {
			faults = append(faults, err)
		}
		if !shared {
			continue
		}
		value, complete, err := timeless(string(each.Key), each.Value)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", each.Key, err))
		}
		if !complete {
			missing = "the status of " + string(each.Key)
		}
		rows[string(each.Key)], found[kind] = value, true
	}
	for _, kind := range kinds {
		if !found[kind] {
			missing = kind
		}
	}
	return rows, missing, errors.Join(faults...)
}

// store writes rows into a new database, in the order of their keys.
func store(ctx context.Context, rows map[string][]byte, path, folder string) error {
	database, socket := filepath.Join(folder, "seed.db"), "unix://"+filepath.Join(folder, "seed.sock")
	if _, err := components.Kine(ctx, database, socket); err != nil {
		return err
	}
	client, err := connect(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		absent := clientv3.Compare(clientv3.ModRevision(key), "=", 0)
		answer, err := client.Txn(ctx).If(absent).Then(clientv3.OpPut(key, string(rows[key]))).Commit()
		if err != nil {
			return err
		}
		if !answer.Succeeded {
			return fmt.Errorf("%s is there already", key)
		}
	}
	copied, err := sql.Open("sqlite", database) // of modernc.org/sqlite, which kine has without cgo
	if err != nil {
		return err
	}
	defer copied.Close()
	_, err = copied.ExecContext(ctx, "VACUUM INTO ?", path) // a file of its own, without a log beside it
	return err
}
