package components

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sandkube/node/cluster"
	"sandkube/node/settings"
)

func TestAPartOfTheKubeletsConfiguration(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "kubelet.d")
	if err := configureKubelet(nil, folder); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("nothing made %v", err)
	}
	if err := configureKubelet(map[string]any{"maxPods": 20}, folder); err != nil {
		t.Fatal(err)
	}
	want := `{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","maxPods":20}`
	if got, err := os.ReadFile(filepath.Join(folder, "settings.conf")); err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

func TestAPartOfTheKubeletsConfigurationIsJudged(t *testing.T) {
	for text, part := range map[string]map[string]any{
		"": {"maxPods": 20, "evictionHard": map[string]any{"memory.available": "1Mi"}},
		`strict decoding error: unknown field "maxPodz"`:                    {"maxPodz": 20},
		"cannot unmarshal string into Go struct field":                      {"maxPods": "many"},
		`no kind "Pod" is registered for version`:                           {"kind": "Pod"},
		`strict decoding error: unknown field "authentication.anonymous.x"`: {"authentication": map[string]any{"anonymous": map[string]any{"x": 1}}},
	} {
		err := checkKubelet(part)
		if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v", part, err)
		}
	}
}

func TestTheNodesOwnKeyStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki", "encryption.yaml")
	var texts []string
	for range 2 {
		if err := ownKey(path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || texts[0] != texts[1] || !strings.Contains(texts[0], "resources: [secrets]") {
		t.Errorf("%v, %v: %q", info, err, texts)
	}
}

// Components are told both ranges of a cluster of dual stack, and one of any other.
func TestArgumentsOfTwoFamilies(t *testing.T) {
	said := func(of cluster.Cluster) []string {
		k := &Kubernetes{cluster: of}
		server, err := k.apiserverArguments()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(server, k.managerArguments(), k.kubeletArguments())
	}
	services := "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112"
	all := said(cluster.Default.With(cluster.DefaultSecond))
	for _, each := range []string{services, "--cluster-cidr=10.88.0.0/24,fd00:10:88::/64", "--node-ip=10.88.0.1,fd00:10:88::1", "--advertise-address=10.88.0.1"} {
		if !slices.Contains(all, each) {
			t.Errorf("%s is missing in %v", each, all)
		}
	}
	if at := slices.Index(all, services); !slices.Contains(all[at+1:], services) {
		t.Errorf("API server and controller manager are not told both: %v", all)
	}
	for _, each := range said(cluster.Default) {
		if strings.Contains(each, "fd00") || strings.HasPrefix(each, "--cluster-cidr") {
			t.Errorf("one family: %s", each)
		}
	}
}

func TestArgumentsOfTheAPIServer(t *testing.T) {
	k := &Kubernetes{cluster: cluster.Default}
	plain, err := k.apiserverArguments()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range plain {
		for _, name := range []string{"--feature-gates", "--runtime-config", "--audit", "--encryption"} {
			if strings.HasPrefix(one, name) {
				t.Errorf("nobody asked for %s", one)
			}
		}
	}
	k.settings = settings.Settings{
		FeatureGates:  map[string]bool{"B": false, "A": true},
		RuntimeConfig: map[string]bool{"api/all": true},
		APIServer: settings.APIServer{
			Arguments:               []string{"--allow-privileged=false"},
			EnableAdmissionPlugins:  []string{"AlwaysPullImages", "TaintNodesByCondition"},
			DisableAdmissionPlugins: []string{"DenyServiceExternalIPs"},
		},
		Audit:      settings.Audit{Policy: "kind: Policy"},
		Encryption: settings.Encryption{Configuration: "kind: EncryptionConfiguration"},
	}
	got, err := k.apiserverArguments()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"--feature-gates=A=true,B=false", "--runtime-config=api/all=true", "--allow-privileged=false",
		"--enable-admission-plugins=NodeRestriction,AlwaysPullImages,TaintNodesByCondition",
		"--disable-admission-plugins=DenyServiceExternalIPs",
		"--audit-policy-file=" + auditPolicy, "--audit-log-path=-", "--encryption-provider-config=" + encryptionFile,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %v", want, got)
		}
	}
	if slices.Contains(got, "--allow-privileged=true") {
		t.Error("the node's own argument is left")
	}
}
