package components

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app/options"

	"sandkube/node/cluster"
	"sandkube/node/pki"
	"sandkube/node/settings"
)

// construct is New, once: what it touches is the process's.
var construct = sync.OnceValues(func() (*Kubernetes, error) {
	return New(context.Background(), cluster.Default, settings.Settings{}, io.Discard)
})

func TestKubernetesKnowsEachArgument(t *testing.T) {
	made, err := construct()
	if err != nil {
		t.Fatal(err)
	}
	arguments, err := made.apiserverArguments()
	if err != nil {
		t.Fatal(err)
	}
	if err := parse("kube-apiserver", made.apiserver.Flags(), arguments); err != nil {
		t.Error(err)
	}
	if err := parse("kube-scheduler", *made.scheduler.Flags, made.schedulerArguments()); err != nil {
		t.Error(err)
	}
	if err := made.manager.ParseFlags(made.managerArguments()); err != nil {
		t.Errorf("kube-controller-manager: %v", err)
	}
	flags := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	kubelet.NewKubeletFlags().AddFlags(flags)
	if err := flags.Parse(made.kubeletArguments()); err != nil {
		t.Errorf("kubelet: %v", err)
	}
	err = parse("kube-scheduler", *made.scheduler.Flags, []string{"--no-such-flag"})
	if err == nil || err.Error() != "kube-scheduler: unknown flag: --no-such-flag" {
		t.Errorf("an unknown flag gives %v", err)
	}
}

// under has the components keep what they share in a folder for as long as a test runs.
func under(t *testing.T) string {
	t.Helper()
	shared, socket, datastore := PKI, DatastoreSocket, datastoreFolder
	t.Cleanup(func() { PKI, DatastoreSocket, datastoreFolder = shared, socket, datastore })
	folder := t.TempDir()
	Under(folder)
	return folder
}

func TestUnder(t *testing.T) {
	folder := under(t)
	made := &Kubernetes{cluster: cluster.Default}
	arguments, err := made.apiserverArguments()
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range append(arguments, made.managerArguments()...) {
		if strings.Contains(each, "/run/sandkube") {
			t.Errorf("%s is not below %s", each, folder)
		}
	}
	if got, wanted := Kubeconfig("x"), filepath.Join(folder, "pki/x.kubeconfig"); got != wanted {
		t.Errorf("kubeconfig %s, wanted %s", got, wanted)
	}
}

func TestPlantKeepsADatabase(t *testing.T) {
	folder := t.TempDir()
	seed, database := filepath.Join(folder, "seed"), filepath.Join(folder, "state.db")
	if err := os.WriteFile(seed, []byte("seed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := plant(seed, database); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(database); string(got) != "seed" {
		t.Errorf("planted %q", got)
	}
	if err := os.WriteFile(database, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := plant(seed, database); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(database); string(got) != "kept" {
		t.Errorf("a database became %q", got)
	}
	if err := plant(filepath.Join(folder, "none"), filepath.Join(folder, "other")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a seed that is not there: %v", err)
	}
}

func TestConditions(t *testing.T) {
	ready := func(status v1.ConditionStatus) *v1.Node {
		return &v1.Node{Status: v1.NodeStatus{Conditions: []v1.NodeCondition{
			{Type: v1.NodeDiskPressure, Status: v1.ConditionTrue}, {Type: v1.NodeReady, Status: status},
		}}}
	}
	addresses := func(each ...v1.EndpointAddress) *v1.Endpoints { //nolint:staticcheck // as APIServed
		return &v1.Endpoints{Subsets: []v1.EndpointSubset{{Addresses: each}}} //nolint:staticcheck // as APIServed
	}
	for _, one := range []struct {
		name      string
		condition func(watch.Event) (bool, error)
		object    runtime.Object
		wanted    bool
	}{
		{"ready", Earlier{}.isReady, ready(v1.ConditionTrue), true},
		{"not ready", Earlier{}.isReady, ready(v1.ConditionFalse), false},
		{"unknown", Earlier{}.isReady, ready(v1.ConditionUnknown), false},
		{"no condition", Earlier{}.isReady, &v1.Node{}, false},
		{"another kind", Earlier{}.isReady, &v1.Pod{}, false},
		{"an address", hasAddress, addresses(v1.EndpointAddress{IP: "10.88.0.1"}), true}, //nolint:staticcheck // as APIServed
		{"no address", hasAddress, addresses(), false},
		{"no subset", hasAddress, &v1.Endpoints{}, false}, //nolint:staticcheck // as APIServed
		{"another kind", hasAddress, &v1.Pod{}, false},
	} {
		if got, err := one.condition(watch.Event{Type: watch.Added, Object: one.object}); got != one.wanted || err != nil {
			t.Errorf("%s: %v, %v", one.name, got, err)
		}
	}
	if got, _ := exists(watch.Event{Type: watch.Deleted}); got {
		t.Error("what was deleted exists")
	}
}

func refusal(reason metav1.StatusReason, code int32) metav1.Status {
	kind := metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return metav1.Status{TypeMeta: kind, Status: metav1.StatusFailure, Reason: reason, Message: "no", Code: code}
}

// namespaces answers a list or a watch of them: there is default.
func namespaces(to http.ResponseWriter, request *http.Request) {
	to.Header().Set("Content-Type", "application/json")
	meta := metav1.ObjectMeta{Name: metav1.NamespaceDefault, ResourceVersion: "1"}
	one := v1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: meta}
	if request.URL.Query().Get("watch") == "" {
		list := metav1.TypeMeta{Kind: "NamespaceList", APIVersion: "v1"}
		_ = json.NewEncoder(to).Encode(v1.NamespaceList{TypeMeta: list, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []v1.Namespace{one}})
		return
	}
	end := *one.DeepCopy()
	end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	if request.URL.Query().Get("sendInitialEvents") != "" { // otherwise it has listed them
		_ = json.NewEncoder(to).Encode(map[string]any{"type": watch.Added, "object": one})
		_ = json.NewEncoder(to).Encode(map[string]any{"type": watch.Bookmark, "object": end})
	}
	_ = http.NewResponseController(to).Flush()
	<-request.Context().Done()
}

// api answers as an API server does that has some names already; it tells what was made.
func api(t *testing.T, taken ...string) (*rest.Config, func() []string) {
	t.Helper()
	var lock sync.Mutex
	var made []string
	server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodGet {
			namespaces(to, request)
			return
		}
		var object metav1.PartialObjectMetadata
		_ = json.NewDecoder(request.Body).Decode(&object)
		to.Header().Set("Content-Type", "application/json")
		lock.Lock()
		defer lock.Unlock()
		switch {
		case slices.Contains(taken, object.Name):
			to.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(to).Encode(refusal(metav1.StatusReasonAlreadyExists, 409))
		case slices.Contains(taken, "!"+object.Name):
			to.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(to).Encode(refusal(metav1.StatusReasonForbidden, 403))
		default:
			made = append(made, request.URL.Path+"/"+object.Name)
			_ = json.NewEncoder(to).Encode(object)
		}
	}))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	return config, func() []string {
		lock.Lock()
		defer lock.Unlock()
		return slices.Clone(made)
	}
}

func TestEarlyAccounts(t *testing.T) {
	under(t)
	config, made := api(t)
	if err := EarlyAccounts(t.Context(), config); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without an authority: %v", err)
	}
	if err := errors.Join(os.MkdirAll(PKI, 0o700), os.WriteFile(certificate(pki.CA), []byte("authority"), 0o600)); err != nil {
		t.Fatal(err)
	}
	account, bundle := "/api/v1/namespaces/default/serviceaccounts/default", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
	if err := EarlyAccounts(t.Context(), config); err != nil || !slices.Equal(made(), []string{account, bundle}) {
		t.Errorf("made %v, %v", made(), err)
	}
	config, made = api(t, "default")
	if err := EarlyAccounts(t.Context(), config); err != nil || !slices.Equal(made(), []string{bundle}) {
		t.Errorf("where the controller was first: made %v, %v", made(), err)
	}
	config, _ = api(t, "!kube-root-ca.crt")
	if err := EarlyAccounts(t.Context(), config); err == nil || err.Error() != "config map kube-root-ca.crt: no" {
		t.Errorf("what is refused: %v", err)
	}
}

func TestAPIAnswersAfterRefusals(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/livez/ping" || asked.Add(1) < 3 {
			to.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	if err := APIAnswers(t.Context(), &rest.Config{Host: server.URL}); err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := APIHealthy(ctx, &rest.Config{Host: server.URL}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that is not healthy: %v", err)
	}
}

const role = "SANDKUBE_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		os.Exit(7)
	}
	os.Exit(m.Run())
}

func TestCommand(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program)
	command.Env = []string{role + "=exit"}
	var status *exec.ExitError
	if err := Command(command); !errors.As(err, &status) || status.ExitCode() != 7 {
		t.Errorf("it ended with %v", err)
	}
	if err := Command(exec.Command("/no/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
}
