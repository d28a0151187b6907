package components

import (
	"path/filepath"

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

// Where the components of this process keep what they share.
var (
	PKI             = "/run/sandkube/pki"
	DatastoreSocket = "unix:///run/sandkube/kine.sock" // where kine serves etcd's protocol
	datastoreFolder = "/var/lib/sandkube/db"
)

// Under has them keep it below another folder, for a process that is no node. To be called first.
func Under(folder string) {
	PKI = filepath.Join(folder, "pki")
	DatastoreSocket = "unix://" + filepath.Join(folder, "kine.sock")
	datastoreFolder = folder
}

func certificate(name string) string { return filepath.Join(PKI, name+".crt") }
func key(name string) string         { return filepath.Join(PKI, name+".key") }

// Kubeconfig is the path of a client's kubeconfig.
func Kubeconfig(name string) string { return filepath.Join(PKI, name+".kubeconfig") }

func apiserverArguments() []string {
	return []string{
		"--etcd-servers=" + DatastoreSocket,
		"--advertise-address=" + boot.NodeAddress,
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
	return append([]string{
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
	}, statusArguments(pki.Manager)...)
}

func schedulerArguments() []string {
	return append([]string{
		"--kubeconfig=" + Kubeconfig(pki.Scheduler),
		"--leader-elect=false",
		"--profiling=false",
	}, statusArguments(pki.Scheduler)...)
}

// statusArguments are those of the listeners on 127.0.0.1, at Kubernetes' own ports, that answer /healthz (to the API
// server, which has it as componentstatuses) and /metrics. A certificate of their own would cost the boot a key.
func statusArguments(name string) []string {
	return []string{
		"--bind-address=127.0.0.1",
		"--tls-cert-file=" + certificate(pki.Server),
		"--tls-private-key-file=" + key(pki.Server),
		"--client-ca-file=" + certificate(pki.CA),
		"--authentication-kubeconfig=" + Kubeconfig(name),
		"--authentication-skip-lookup=true", // of what --client-ca-file says
		"--authorization-kubeconfig=" + Kubeconfig(name),
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
