package system

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sandkube/node/pki"
)

const text = `apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: kube-system}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.example.org}
spec: {group: example.org, version: v1, service: {name: a, namespace: kube-system}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: b, namespace: kube-system}
`

func parts(t *testing.T, disabled ...string) []Part {
	t.Helper()
	folder, definitions := t.TempDir(), t.TempDir()
	defined := "kind: CustomResourceDefinition\nmetadata: {name: c}\n"
	for path, text := range map[string]string{
		filepath.Join(folder, "one.yaml"):             text,
		filepath.Join(folder, "two.yaml"):             "kind: ConfigMap\nmetadata: {name: b}\n",
		filepath.Join(definitions, "one", "all.yaml"): defined,
		filepath.Join(definitions, "two", "all.yaml"): defined,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Read(folder, definitions, func(name string) bool { return slices.Contains(disabled, name) })
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	return all
}

func kinds(objects []*unstructured.Unstructured) []string {
	var all []string
	for _, each := range objects {
		all = append(all, each.GetKind())
	}
	return all
}

func TestParts(t *testing.T) {
	all := parts(t, "two")
	one, two := all[0], all[1]
	if one.Name != "one" || one.Disabled || two.Name != "two" || !two.Disabled {
		t.Errorf("%+v", all)
	}
	if !slices.Equal(kinds(one.Objects.Objects), []string{"ServiceAccount", "Deployment", "DaemonSet"}) || !slices.Equal(kinds(one.Served.Objects), []string{"APIService"}) {
		t.Errorf("%v, %v", kinds(one.Objects.Objects), kinds(one.Served.Objects))
	}
	want := []Workload{{"Deployment", "kube-system", "a"}, {"DaemonSet", "kube-system", "b"}}
	if got := one.Workloads(); !slices.Equal(got, want) || len(two.Workloads()) != 0 {
		t.Errorf("workloads %v", got)
	}
	if len(one.Definitions) != 1 || one.Definitions[0].Objects[0].GetName() != "c" || len(two.Definitions) != 0 {
		t.Errorf("definitions %v, %v", one.Definitions, two.Definitions)
	}
	if got := kinds(one.All().Objects); !slices.Equal(got, []string{"ServiceAccount", "Deployment", "DaemonSet", "APIService"}) {
		t.Errorf("all are %v", got)
	}
}

// What an APIService is served with is believed by whoever reads its bundle, for the name that the API server asks for.
func TestCertify(t *testing.T) {
	now := time.Now()
	ca, err := pki.Authority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	one := parts(t)[0]
	if err := one.Certify(ca, now); err != nil {
		t.Fatal(err)
	}
	secret := one.Objects.Objects[0]
	if secret.GetKind() != "Secret" || secret.GetName() != "a-tls" || secret.GetNamespace() != "kube-system" {
		t.Fatalf("first is %v", secret)
	}
	data, _, _ := unstructured.NestedStringMap(secret.Object, "data")
	bundle, _, _ := unstructured.NestedString(one.Served.Objects[0].Object, "spec", "caBundle")
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(decoded(t, bundle)) {
		t.Fatal("no authority")
	}
	block, _ := pem.Decode(decoded(t, data["tls.crt"]))
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: authorities, DNSName: "a.kube-system.svc"}); err != nil {
		t.Error(err)
	}
	if key, _ := pem.Decode(decoded(t, data["tls.key"])); key == nil {
		t.Error("no key")
	}
}

func decoded(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
