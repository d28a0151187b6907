package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func object(kind, name string) string {
	version := map[string]string{"Widget": "example.org/v1", "Deployment": "apps/v1"}[kind]
	if version == "" {
		version = "v1"
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n", version, kind, name)
}

func TestRead(t *testing.T) {
	place := folder(t, map[string]string{
		"20-b.yaml": object("ConfigMap", "fourth"),
		"10-a.yaml": "# first\n---\n" + object("Namespace", "first") + "---\n\n---\n" + object("ConfigMap", "second") +
			"---\n" + `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "third"}}` + "\n---\n# end\n",
		"30-c.yml":  object("ConfigMap", "unread"),
		"notes.txt": "no YAML: [",
		"40.yaml":   "",
	})
	sets, err := Read(place)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, set := range sets {
		for _, each := range set.Objects {
			found = append(found, each.GetKind()+" "+each.GetName())
		}
	}
	if want := []string{"Namespace first", "ConfigMap second", "Secret third", "ConfigMap fourth"}; !slices.Equal(found, want) {
		t.Errorf("read %v, not %v", found, want)
	}
}

func TestNoFolder(t *testing.T) {
	objects, err := Read(filepath.Join(t.TempDir(), "missing"))
	if err != nil || len(objects) > 0 {
		t.Errorf("%v, %v", objects, err)
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                              "yaml",
		"a: b\n\tc: d\n":                    "yaml",
		"kind: Pod\n":                       "an object without kind or name",
		"metadata: {name: x}\n":             "an object without kind or name",
		object("Pod", "x") + "---\nkind: Y": "an object without kind or name",
		"- a\n- b\n":                        "cannot unmarshal",
	} {
		place := folder(t, map[string]string{"10-good.yaml": object("Pod", "good"), "20-bad.yaml": text})
		_, err := Read(place)
		if err == nil {
			t.Errorf("%q was read", text)
			continue
		}
		said := err.Error()
		if !strings.HasPrefix(said, "20-bad.yaml: ") || !strings.Contains(said, want) {
			t.Errorf("%q: %v; want the file's name and %q", text, err, want)
		}
	}
}

// api is an HTTP server that answers discovery as an API server does, takes
// server-side applies, and has the objects of others; before it is ready it refuses everything.
type api struct {
	theirs  []string // paths of objects that others made
	removed []string
	t       *testing.T
	mu      sync.Mutex
	refuse  int // so many requests are answered 503
	late    int // so many discoveries do not know example.org yet
	broken  string
	applied []string
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse > 0 {
		a.refuse--
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	if r.Method == http.MethodPatch {
		a.patch(w, r)
		return
	}
	if a.has(w, r) {
		return
	}
	resource := func(name, kind string, namespaced bool) metav1.APIResource {
		return metav1.APIResource{Name: name, Kind: kind, Namespaced: namespaced, Verbs: metav1.Verbs{"patch"}}
	}
	group := func(name string) metav1.APIGroup {
		version := metav1.GroupVersionForDiscovery{GroupVersion: name + "/v1", Version: "v1"}
		return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	}
	switch r.URL.Path {
	case "/api":
		a.answer(w, metav1.APIVersions{Versions: []string{"v1"}})
	case "/apis":
		groups := []metav1.APIGroup{group("apps")}
		if a.late--; a.late < 0 {
			groups = append(groups, group("example.org"))
		}
		a.answer(w, metav1.APIGroupList{Groups: groups})
	case "/api/v1":
		a.answer(w, metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{
			resource("namespaces", "Namespace", false), resource("configmaps", "ConfigMap", true),
		}})
	case "/apis/apps/v1":
		a.answer(w, metav1.APIResourceList{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{
			resource("deployments", "Deployment", true),
		}})
	case "/apis/example.org/v1":
		a.answer(w, metav1.APIResourceList{GroupVersion: "example.org/v1", APIResources: []metav1.APIResource{
			resource("widgets", "Widget", false),
		}})
	default:
		http.NotFound(w, r)
	}
}

// has answers for an object that is there, if it is.
func (a *api) has(w http.ResponseWriter, r *http.Request) bool {
	manager := owner
	switch at := r.URL.Path; {
	case slices.Contains(a.theirs, at):
		manager = "somebody"
	case !slices.Contains(a.applied, at):
		return false
	}
	if r.Method == http.MethodDelete {
		a.removed = append(a.removed, r.URL.Path)
	}
	a.answer(w, map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": "x", "managedFields": []any{map[string]any{"manager": manager}}},
	})
	return true
}

func (a *api) patch(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Error(err)
	}
	if kind := r.Header.Get("Content-Type"); kind != "application/apply-patch+yaml" {
		a.t.Errorf("%s: a patch of type %s", r.URL, kind)
	}
	if query := r.URL.Query(); query.Get("fieldManager") != owner || query.Get("force") != "true" {
		a.t.Errorf("%s: not applied with force as %s", r.URL, owner)
	}
	var sent map[string]any
	if err := json.Unmarshal(body, &sent); err != nil || sent["kind"] == "" {
		a.t.Errorf("%s: %v: %s", r.URL, err, body)
	}
	if a.broken != "" && strings.HasSuffix(r.URL.Path, a.broken) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no such field","code":422}`))
		return
	}
	a.applied = append(a.applied, r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (a *api) answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		a.t.Error(err)
	}
}

const first = "/api/v1/namespaces/"

func deployFiles(t *testing.T, a *api, patience time.Duration, files map[string]string) error {
	t.Helper()
	a.t = t
	objects, err := Read(folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return Deploy(ctx, &rest.Config{Host: server.URL, QPS: -1}, objects)
}

func TestAppliedInOrder(t *testing.T) {
	a := &api{}
	err := deployFiles(t, a, time.Minute, map[string]string{
		"10.yaml": object("Namespace", "shop") + "---\n" + object("Widget", "w"),
		"20.yaml": object("Deployment", "a") + "  namespace: shop\n---\n" + object("ConfigMap", "b"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		first + "shop", "/apis/example.org/v1/widgets/w",
		"/apis/apps/v1/namespaces/shop/deployments/a", first + "default/configmaps/b",
	}
	if !slices.Equal(a.applied, want) {
		t.Errorf("applied\n%v\nwant\n%v", a.applied, want)
	}
}

// The API may not answer yet, and a kind may come to be served while objects are applied.
func TestTriedAgainUntilServed(t *testing.T) {
	a := &api{refuse: 3, late: 2}
	files := map[string]string{"a.yaml": object("Namespace", "a") + "---\n" + object("Widget", "b")}
	if err := deployFiles(t, a, time.Minute, files); err != nil {
		t.Fatal(err)
	}
	if want := []string{first + "a", "/apis/example.org/v1/widgets/b"}; !slices.Equal(a.applied, want) {
		t.Errorf("applied %v, want %v", a.applied, want)
	}
}

// A slow machine's API server refuses for longer than a dozen tries.
func TestTriedAgainForLong(t *testing.T) {
	a := &api{refuse: 40}
	if err := deployFiles(t, a, time.Minute, map[string]string{"a.yaml": object("Namespace", "a")}); err != nil {
		t.Fatal(err)
	}
}

// An object that is refused is named with the server's words, and stops those after it.
func TestRefusedObject(t *testing.T) {
	a := &api{broken: "/bad"}
	files := map[string]string{"a.yaml": object("Namespace", "good") + "---\n" + object("Namespace", "bad") + "---\n" + object("Namespace", "after")}
	err := deployFiles(t, a, time.Second, files)
	if err == nil || !strings.HasPrefix(err.Error(), "a.yaml: Namespace bad: ") || !strings.Contains(err.Error(), "no such field") {
		t.Errorf("error %v", err)
	}
	if want := []string{first + "good"}; !slices.Equal(a.applied, want) {
		t.Errorf("applied %v, want %v", a.applied, want)
	}
}

// What the node applied is removed, the last first; what somebody else made is left, and what is not there is no error.
func TestRemove(t *testing.T) {
	a := &api{t: t, applied: []string{first + "a", "/apis/apps/v1/namespaces/a/deployments/b"}, theirs: []string{first + "c"}}
	text := object("Namespace", "a") + "---\n" + object("Deployment", "b") + "  namespace: a\n---\n" + object("Namespace", "c") + "---\n" + object("Namespace", "d")
	set, err := Parse("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a)
	defer server.Close()
	if err := Remove(t.Context(), &rest.Config{Host: server.URL, QPS: -1}, set); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/apis/apps/v1/namespaces/a/deployments/b", first + "a"}; !slices.Equal(a.removed, want) {
		t.Errorf("removed %v, want %v", a.removed, want)
	}
}

func TestUnknownKind(t *testing.T) {
	a := &api{late: 1 << 20}
	err := deployFiles(t, a, time.Second, map[string]string{"a.yaml": object("Widget", "x")})
	if err == nil || !strings.HasPrefix(err.Error(), "a.yaml: Widget x: ") || !strings.Contains(err.Error(), "no matches for kind") {
		t.Errorf("error %v", err)
	}
}

func TestNothingToDeployAsksNobody(t *testing.T) {
	if err := Deploy(t.Context(), &rest.Config{Host: "http://127.0.0.1:1"}, nil); err != nil {
		t.Error(err)
	}
}
