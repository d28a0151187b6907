package components

import (
	"path/filepath"
	"strconv"

	"sandkube/node/boot"
	"sandkube/node/cluster"
	_ "sandkube/node/mains" // for its effects
	"sandkube/node/pki"
)

// What a cluster of ours is called and where it is.
var (
	NodeName       = cluster.Default.NodeName
	Domain         = cluster.Default.Domain
	ServiceRange   = cluster.Default.Services.String()
	ServiceAddress = cluster.Default.API.String() // of the API
	DNSAddress     = cluster.Default.DNS.String()
	Server         = cluster.Default.Server()
)

// PKI is the folder of keys and certificates.
const PKI = "/run/sandkube/pki"

func certificate(name string) string { return filepath.Join(PKI, name+".crt") }
func key(name string) string         { return filepath.Join(PKI, name+".key") }

// Kubeconfig is the path of a client's kubeconfig.
func Kubeconfig(name string) string { return filepath.Join(PKI, name+".kubeconfig") }

func apiserverArguments() []string {
	return []string{
		"--etcd-servers=" + DatastoreSocket,
		"--advertise-address=" + boot.NodeAddress,
		"--secure-port=" + strconv.Itoa(int(cluster.Default.APIPort)),
		"--service-cluster-ip-range=" + ServiceRange,
		"--anonymous-auth=false",
		"--authorization-mode=Node,RBAC",
		// Who may make a Service could take any address over (CVE-2020-8554).
		"--enable-admission-plugins=NodeRestriction,DenyServiceExternalIPs",
		// It would taint the new node as not ready, which only the controller manager takes back, seconds
		// after the node is ready; a node that really is not ready is tainted by the controller all the same.
		"--disable-admission-plugins=TaintNodesByCondition",
		"--client-ca-file=" + certificate(pki.CA),
		"--tls-cert-file=" + certificate(pki.Server),
		"--tls-private-key-file=" + key(pki.Server),
		"--kubelet-certificate-authority=" + certificate(pki.CA),
		"--kubelet-client-certificate=" + certificate(pki.ServerToKubelet),
		"--kubelet-client-key=" + key(pki.ServerToKubelet),
		// The node's name resolves to a loopback address, which the server refuses to proxy to.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + Domain,
		"--service-account-key-file=" + key(pki.ServiceAccounts),
		"--service-account-signing-key-file=" + key(pki.ServiceAccounts),
		"--requestheader-client-ca-file=" + certificate(pki.FrontProxyCA),
		"--requestheader-allowed-names=" + pki.FrontProxy,
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + certificate(pki.FrontProxy),
		"--proxy-client-key-file=" + key(pki.FrontProxy),
		"--enable-aggregator-routing=true", // admission webhooks reach their Services by endpoint
		"--allow-privileged=true",
		"--profiling=false",
	}
}

func managerArguments() []string {
	return []string{
		"--kubeconfig=" + Kubeconfig(pki.Manager),
		"--root-ca-file=" + certificate(pki.CA),
		"--service-account-private-key-file=" + key(pki.ServiceAccounts),
		"--cluster-signing-cert-file=" + certificate(pki.CA),
		"--cluster-signing-key-file=" + key(pki.CA),
		"--use-service-account-credentials=true",
		// With credentials of its own each controller makes three requests before it starts, which
		// the default of 20 a second turns into five seconds.
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		"--leader-elect=false",
		"--profiling=false",
		"--secure-port=0",
	}
}

func schedulerArguments() []string {
	return []string{
		"--kubeconfig=" + Kubeconfig(pki.Scheduler),
		"--leader-elect=false",
		"--profiling=false",
		"--secure-port=0",
	}
}

func kubeletArguments() []string {
	return []string{
		"--config=" + KubeletConfig,
		"--kubeconfig=" + Kubeconfig(pki.NodeClient),
		"--hostname-override=" + NodeName,
		"--node-ip=" + boot.NodeAddress,
		"--cert-dir=/var/lib/kubelet/pki",
	}
}
