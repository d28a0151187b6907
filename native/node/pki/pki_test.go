package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

var (
	now   = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	names = Names{
		Node:           "runsc",
		NodeAddress:    net.IPv4(10, 88, 0, 1),
		ServiceAddress: net.IPv4(10, 96, 0, 1),
		Domain:         "cluster.local",
	}
	client = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	server = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
)

func made(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "pki")
	if _, err := Cluster(folder, "https://127.0.0.1:6443", names, now); err != nil {
		t.Fatal(err)
	}
	return folder
}

// pair reads NAME.crt and NAME.key, and refuses a key that is not the certificate's.
func pair(t *testing.T, folder, name string) *x509.Certificate {
	t.Helper()
	loaded, err := tls.LoadX509KeyPair(filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key"))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return loaded.Leaf
}

// fromKubeconfig reads the client certificate of NAME.kubeconfig, and what it says of the server.
func fromKubeconfig(t *testing.T, folder, name string) (leaf *x509.Certificate, address string, ca []byte) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(folder, name+".kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Leaf, config.Host, config.CAData
}

func verify(leaf, ca *x509.Certificate, when time.Time, usages []x509.ExtKeyUsage, name string) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: when, KeyUsages: usages, DNSName: name})
	return err
}

func TestAuthorities(t *testing.T) {
	folder := made(t)
	for _, name := range []string{CA, FrontProxyCA} {
		ca := pair(t, folder, name)
		if !ca.IsCA || !ca.BasicConstraintsValid || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature {
			t.Errorf("%s: CA %v, constraints %v, key usage %b", name, ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage)
		}
		if len(ca.ExtKeyUsage) > 0 {
			t.Errorf("%s: extended key usages %v would limit what it may sign", name, ca.ExtKeyUsage)
		}
		if err := ca.CheckSignatureFrom(ca); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if pair(t, folder, CA).Subject.String() == pair(t, folder, FrontProxyCA).Subject.String() {
		t.Error("both authorities have one name")
	}
}

func TestServers(t *testing.T) {
	folder := made(t)
	ca := pair(t, folder, CA)
	for name, want := range map[string]struct{ names, addresses []string }{
		Server: {
			[]string{
				"localhost", "runsc", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local",
			},
			[]string{"127.0.0.1", "10.88.0.1", "10.96.0.1"},
		},
		Kubelet: {[]string{"runsc"}, []string{"127.0.0.1", "10.88.0.1"}},
	} {
		leaf := pair(t, folder, name)
		var addresses []string
		for _, each := range leaf.IPAddresses {
			addresses = append(addresses, each.String())
		}
		if !slices.Equal(leaf.DNSNames, want.names) || !slices.Equal(addresses, want.addresses) {
			t.Errorf("%s: is for %v and %v", name, leaf.DNSNames, addresses)
		}
		if !slices.Equal(leaf.ExtKeyUsage, server) {
			t.Errorf("%s: extended key usages %v", name, leaf.ExtKeyUsage)
		}
		for _, each := range append(want.names, want.addresses...) {
			if err := verify(leaf, ca, now, server, each); err != nil {
				t.Errorf("%s as %s: %v", name, each, err)
			}
		}
		if verify(leaf, ca, now, client, "") == nil {
			t.Errorf("%s may pose as a client", name)
		}
		if verify(leaf, ca, now, server, "10.88.0.2") == nil || verify(leaf, ca, now, server, "example.org") == nil {
			t.Errorf("%s is for a name that is not its own", name)
		}
	}
}

func TestIdentities(t *testing.T) {
	folder := made(t)
	ca := pair(t, folder, CA)
	caFile, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]string{
		Admin:      "CN=admin,O=system:masters",
		Manager:    "CN=system:kube-controller-manager",
		Scheduler:  "CN=system:kube-scheduler",
		Services:   "CN=system:kube-proxy",
		NodeClient: "CN=system:node:runsc,O=system:nodes",
		DNS:        "CN=system:coredns",

		LoadBalancer: "CN=system:serviceaccount:kube-system:service-controller",
	}
	made, err := filepath.Glob(filepath.Join(folder, "*.kubeconfig"))
	if err != nil || len(made) != len(wanted) {
		t.Errorf("kubeconfigs of others than are known here: %v, %v", made, err)
	}
	for name, want := range wanted {
		leaf, address, trusted := fromKubeconfig(t, folder, name)
		checkClient(t, name, leaf, ca, want)
		if address != "https://127.0.0.1:6443" || !bytes.Equal(trusted, caFile) {
			t.Errorf("%s: goes to %s, trusts\n%s", name, address, trusted)
		}
	}
	checkClient(t, ServerToKubelet, pair(t, folder, ServerToKubelet), ca, "CN=kube-apiserver-kubelet-client")
	front := pair(t, folder, FrontProxy)
	checkClient(t, FrontProxy, front, pair(t, folder, FrontProxyCA), "CN=front-proxy-client")
	if verify(front, ca, now, client, "") == nil {
		t.Error("the front proxy's certificate is one of the cluster's CA: whoever has one may pose as anybody")
	}
}

func checkClient(t *testing.T, name string, leaf, ca *x509.Certificate, subject string) {
	t.Helper()
	if leaf.Subject.String() != subject {
		t.Errorf("%s: is %s, not %s", name, leaf.Subject, subject)
	}
	if err := verify(leaf, ca, now, client, ""); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if verify(leaf, ca, now, server, "") == nil {
		t.Errorf("%s may pose as a server", name)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("%s: CA %v, key usage %b", name, leaf.IsCA, leaf.KeyUsage)
	}
}

func TestTokensKeyIsForNothingElse(t *testing.T) {
	folder := made(t)
	if leaf := pair(t, folder, ServiceAccounts); len(leaf.ExtKeyUsage) > 0 || leaf.IsCA {
		t.Errorf("extended key usages %v, CA %v", leaf.ExtKeyUsage, leaf.IsCA)
	}
}

func TestTimes(t *testing.T) {
	folder := made(t)
	ca, leaf := pair(t, folder, CA), pair(t, folder, Server)
	for moment, good := range map[time.Time]bool{
		now.Add(-25 * time.Hour): false,
		now.Add(-23 * time.Hour): true,
		now.AddDate(0, 0, 364):   true,
		now.AddDate(0, 0, 366):   false,
	} {
		if err := verify(leaf, ca, moment, server, "localhost"); (err == nil) != good {
			t.Errorf("at %s: %v", moment, err)
		}
	}
}

// Nothing is shared between two boots, and each certificate has a key and a number of its own.
func TestFreshEachTime(t *testing.T) {
	seen := map[string]string{}
	for range 2 {
		folder := made(t)
		for _, path := range written(t, folder) {
			if !strings.HasSuffix(path, ".crt") {
				continue
			}
			name := strings.TrimSuffix(filepath.Base(path), ".crt")
			leaf := pair(t, folder, name)
			for _, word := range []string{string(leaf.RawSubjectPublicKeyInfo), leaf.SerialNumber.String()} {
				if other, known := seen[word]; known {
					t.Errorf("%s has the key or the number of %s", path, other)
				}
				seen[word] = path
			}
		}
	}
	if len(seen) < 2*2*7 {
		t.Errorf("only %d keys and numbers", len(seen))
	}
}

func written(t *testing.T, folder string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(found) < 2*7+6 {
		t.Fatalf("%d files: %v", len(found), err)
	}
	return found
}

func TestOnlyTheOwnerReads(t *testing.T) {
	folder := made(t)
	checkMode(t, folder, fs.ModeDir|0o700)
	for _, path := range written(t, folder) {
		checkMode(t, path, 0o600)
	}
}

func checkMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("%s: %s, not %s", path, info.Mode(), want)
	}
}

func TestCredentialsAreTheAdministrators(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "pki")
	credentials, err := Cluster(folder, "https://127.0.0.1:6443", names, now)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(folder, "admin.kubeconfig"))
	if err != nil || !bytes.Equal(file, credentials) {
		t.Errorf("%v:\n%s", err, credentials)
	}
}

func TestFolderThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Cluster(filepath.Join(file, "pki"), "https://127.0.0.1:6443", names, now); err == nil {
		t.Error("certificates were made below a file")
	}
}
