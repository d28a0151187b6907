package pki

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"sandkube/node/files"
)

// Files of a cluster, in the folder that Cluster is given: NAME.crt and
// NAME.key for each name below, service-accounts.key, and NAME.kubeconfig for
// each client.
const (
	CA              = "ca"
	FrontProxyCA    = "front-proxy-ca"
	FrontProxy      = "front-proxy-client"
	Server          = "apiserver"
	ServerToKubelet = "apiserver-kubelet-client"
	Kubelet         = "kubelet"
	ServiceAccounts = "service-accounts"
	Admin           = "admin"
	Manager         = "controller-manager"
	Scheduler       = "scheduler"
	Services        = "services"
	DNS             = "dns"
	LoadBalancer    = "loadbalancer"
	NodeClient      = "node"
)

// Names says what a cluster's certificates are for.
type Names struct {
	Node           string
	NodeAddress    net.IP
	ServiceAddress net.IP
	Domain         string
}

// loopback is how clients in the node reach the API, and how the host does through a forwarded port.
var loopback = net.IPv4(127, 0, 0, 1)

func (n Names) servers() map[string]Subject {
	return map[string]Subject{
		Server: {
			Name:      "kube-apiserver",
			Addresses: []net.IP{loopback, n.NodeAddress, n.ServiceAddress},
			DNSNames: []string{
				"localhost", n.Node, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + n.Domain,
			},
		},
		Kubelet: {
			Name:      "system:node:" + n.Node,
			Groups:    []string{"system:nodes"},
			Addresses: []net.IP{loopback, n.NodeAddress},
			DNSNames:  []string{n.Node},
		},
		// Its role is a manifest, etc/sandkube/manifests/kubelet-api.yaml: it needs no more than the kubelet.
		ServerToKubelet: {Name: "kube-apiserver-kubelet-client", Client: true},
	}
}

// clients are the identities with a kubeconfig. Names and groups are those that
// the API server's own RBAC rules bind (plugin/pkg/auth/authorizer/rbac/bootstrappolicy).
func (n Names) clients() map[string]Subject {
	return map[string]Subject{
		Admin:     {Name: "admin", Groups: []string{"system:masters"}, Client: true},
		Manager:   {Name: "system:kube-controller-manager", Client: true},
		Scheduler: {Name: "system:kube-scheduler", Client: true},
		Services:  {Name: "system:kube-proxy", Client: true},
		DNS:       {Name: "system:coredns", Client: true},
		// The role of the controller of that name is bound to its service account, by the account's name as a user.
		LoadBalancer: {Name: "system:serviceaccount:kube-system:service-controller", Client: true},
		NodeClient:   {Name: "system:node:" + n.Node, Groups: []string{"system:nodes"}, Client: true},
	}
}

// Cluster makes everything in folder, which only root can read, or makes good what is there: a certificate is renewed when
// a third of its life is left, or when it is not what it should be; one of an authority keeps its key, so that what it
// signed and whoever trusts it stay good. It returns the administrator's kubeconfig.
func Cluster(folder, server string, names Names, now time.Time) ([]byte, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	ca, err := keptAuthority(folder, CA, "sandkube", now)
	if err != nil {
		return nil, err
	}
	front, err := keptAuthority(folder, FrontProxyCA, "sandkube-front-proxy", now)
	if err != nil {
		return nil, err
	}
	if err := issue(front, folder, FrontProxy, Subject{Name: FrontProxy, Client: true}, now); err != nil {
		return nil, err
	}
	if err := keepTokensKey(ca, folder, now); err != nil {
		return nil, err
	}
	for name, subject := range names.servers() {
		if err := issue(ca, folder, name, subject, now); err != nil {
			return nil, err
		}
	}
	for name, subject := range names.clients() {
		if err := writeKubeconfig(ca, folder, name, server, subject, now); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(kubeconfigPath(folder, Admin))
}

// Member makes in target what a further node needs, by the authority in folder, whose key stays there: the authority's
// certificate, the kubelet's own, and its client.
func Member(folder, target, server string, names Names, now time.Time) error {
	ca, err := Read(folder, CA)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	return errors.Join(
		files.Replace(filepath.Join(target, CA+".crt"), ca.CertificatePEM(), 0o600),
		issue(ca, target, Kubelet, names.servers()[Kubelet], now),
		writeKubeconfig(ca, target, NodeClient, server, names.clients()[NodeClient], now),
	)
}

// keptAuthority is the CA that a folder has, its certificate renewed if need be, or a new one.
func keptAuthority(folder, file, name string, now time.Time) (Pair, error) {
	if ca, err := Read(folder, file); err == nil && !ca.due(now) {
		return ca, nil
	}
	key, err := readKey(folder, file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey()
	}
	if err != nil {
		return Pair{}, err // another key would make all that was signed by this one worthless
	}
	ca, err := authority(name, key, now)
	if err != nil {
		return Pair{}, err
	}
	return ca, ca.Write(folder, file)
}

// keepTokensKey has the key that tokens are signed with; it has no certificate that matters.
func keepTokensKey(ca Pair, folder string, now time.Time) error {
	if _, err := readKey(folder, ServiceAccounts); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return issue(ca, folder, ServiceAccounts, Subject{Name: ServiceAccounts}, now)
}

func issue(ca Pair, folder, file string, subject Subject, now time.Time) error {
	if pair, err := Read(folder, file); err == nil && ca.signed(pair, subject) && !pair.due(now) {
		return nil
	}
	pair, err := ca.Issue(subject, now)
	if err != nil {
		return err
	}
	return pair.Write(folder, file)
}

func writeKubeconfig(ca Pair, folder, name, server string, subject Subject, now time.Time) error {
	path := kubeconfigPath(folder, name)
	pair, err := readKubeconfig(path, name)
	if err != nil || !ca.signed(pair, subject) || pair.due(now) {
		if pair, err = ca.Issue(subject, now); err != nil {
			return err
		}
	}
	const cluster = "sandkube"
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.CertificatePEM()}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: pair.CertificatePEM(),
		ClientKeyData:         pair.KeyPEM(),
	}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: name}
	config.CurrentContext = cluster
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("kubeconfig of %s: %w", name, err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return files.Replace(path, data, 0o600)
}

func kubeconfigPath(folder, name string) string { return filepath.Join(folder, name+".kubeconfig") }

func readKubeconfig(path, name string) (Pair, error) {
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return Pair{}, err
	}
	info := config.AuthInfos[name]
	if info == nil {
		return Pair{}, fmt.Errorf("%s: there is no user %s", path, name)
	}
	return parse(info.ClientCertificateData, info.ClientKeyData)
}
