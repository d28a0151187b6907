package pki

import (
	"crypto/x509"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const address = "https://127.0.0.1:6443"

func again(t *testing.T, folder string, when time.Time, names Names) {
	t.Helper()
	if _, err := Cluster(folder, address, names, when); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, path := range written(t, folder) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(path)] = string(data)
	}
	return found
}

func differing(one, other map[string]string) []string {
	var names []string
	for name, text := range one {
		if other[name] != text {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestNothingIsRenewedEarly(t *testing.T) {
	folder := made(t)
	before := contents(t, folder)
	again(t, folder, now.AddDate(0, 0, 240), names)
	if after := contents(t, folder); !maps.Equal(before, after) {
		t.Errorf("renewed were %v", differing(before, after))
	}
}

// With less than a third left all certificates are new; the keys of what others trust are the old ones.
func TestRenewal(t *testing.T) {
	folder, when := made(t), now.AddDate(0, 0, 250)
	before, oldCA, oldServer := contents(t, folder), pair(t, folder, CA), pair(t, folder, Server)
	again(t, folder, when, names)
	var same []string
	for name, text := range contents(t, folder) {
		if before[name] == text {
			same = append(same, name)
		}
	}
	slices.Sort(same)
	if want := []string{"ca.key", "front-proxy-ca.key", "service-accounts.crt", "service-accounts.key"}; !slices.Equal(same, want) {
		t.Errorf("kept were %v", same)
	}
	ca, leaf, late := pair(t, folder, CA), pair(t, folder, Server), now.AddDate(0, 0, 600)
	if err := verify(leaf, ca, late, server, "localhost"); err != nil {
		t.Error(err)
	}
	for _, each := range []struct{ leaf, ca *x509.Certificate }{{leaf, oldCA}, {oldServer, ca}} {
		if err := verify(each.leaf, each.ca, when, server, "localhost"); err != nil {
			t.Errorf("across a renewal: %v", err)
		}
	}
	client, _, _ := fromKubeconfig(t, folder, Admin)
	if err := verify(client, ca, late, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, ""); err != nil {
		t.Error(err)
	}
}

// The host's clock was set back behind the time at which they were made.
func TestCertificatesThatHaveNotBegun(t *testing.T) {
	folder, when := made(t), now.AddDate(0, -1, 0)
	again(t, folder, when, names)
	if err := verify(pair(t, folder, Server), pair(t, folder, CA), when, server, "localhost"); err != nil {
		t.Error(err)
	}
}

func TestOtherNames(t *testing.T) {
	folder, other := made(t), names
	other.NodeAddress = net.IPv4(10, 99, 0, 1)
	before := contents(t, folder)
	again(t, folder, now, other)
	if found := differing(before, contents(t, folder)); !slices.Equal(found, []string{"apiserver.crt", "apiserver.key", "kubelet.crt", "kubelet.key"}) {
		t.Errorf("renewed were %v", found)
	}
}

// A node that is killed while it writes leaves any part of the files.
func TestAnyFileMayBeMissing(t *testing.T) {
	folder := made(t)
	for _, path := range written(t, folder) {
		name := filepath.Base(path)
		if name == "ca.key" { // with it goes the authority: see below
			continue
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		again(t, folder, now, names)
		ca := pair(t, folder, CA)
		if err := verify(pair(t, folder, Server), ca, now, server, "localhost"); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
		if leaf, _, _ := fromKubeconfig(t, folder, Admin); leaf.CheckSignatureFrom(ca) != nil {
			t.Errorf("without %s: the administrator's is another's", name)
		}
	}
}

func TestDamagedKeyOfAnAuthority(t *testing.T) {
	folder := made(t)
	if err := os.WriteFile(filepath.Join(folder, "ca.key"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Cluster(folder, address, names, now); err == nil {
		t.Error("a new authority took the place of one that was there")
	}
}
