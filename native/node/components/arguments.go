package components

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	_ "sandkube/node/mains" // for its effects
	"sandkube/node/pki"
	"sandkube/node/settings"
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

func (k *Kubernetes) apiserverArguments() ([]string, error) {
	s := k.settings
	// Who may make a Service could take any address over (CVE-2020-8554).
	enabled := append([]string{"NodeRestriction", "DenyServiceExternalIPs"}, s.APIServer.EnableAdmissionPlugins...)
	// It would taint the new node as not ready, which only the controller manager takes back, seconds
	// after the node is ready; a node that really is not ready is tainted by the controller all the same.
	disabled := append([]string{"TaintNodesByCondition"}, s.APIServer.DisableAdmissionPlugins...)
	own := []string{
		"--etcd-servers=" + DatastoreSocket,
		// in this process: an answer after two seconds tells of a busy machine
		"--etcd-healthcheck-timeout=15s",
		"--etcd-readycheck-timeout=15s",
		"--advertise-address=" + k.cluster.NodeAddress.String(),
		"--service-cluster-ip-range=" + both(k.cluster.Services, k.cluster.Second.Services),
		"--anonymous-auth=false",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=" + strings.Join(without(enabled, s.APIServer.DisableAdmissionPlugins), ","),
		"--disable-admission-plugins=" + strings.Join(without(disabled, s.APIServer.EnableAdmissionPlugins), ","),
		"--client-ca-file=" + certificate(pki.CA),
		"--tls-cert-file=" + certificate(pki.Server),
		"--tls-private-key-file=" + key(pki.Server),
		"--kubelet-certificate-authority=" + certificate(pki.CA),
		"--kubelet-client-certificate=" + certificate(pki.ServerToKubelet),
		"--kubelet-client-key=" + key(pki.ServerToKubelet),
		// The node's name resolves to a loopback address, which the server refuses to proxy to.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + k.cluster.Domain,
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
		// At its end it tells watches to end as well, and does not wait for them to.
		"--shutdown-watch-termination-grace-period=1s",
	}
	if len(s.FeatureGates) > 0 {
		own = append(own, "--feature-gates="+settings.Assigned(s.FeatureGates))
	}
	if len(s.RuntimeConfig) > 0 {
		own = append(own, "--runtime-config="+settings.Assigned(s.RuntimeConfig))
	}
	if s.Audit.Policy != "" {
		own = append(own, "--audit-policy-file="+auditPolicy, "--audit-log-path=-")
	}
	encryption, err := encryptionArguments(s.Encryption)
	return settings.Arguments(append(own, encryption...), s.APIServer.Arguments), err
}

// both are what a cluster has in each of its families, as arguments take it.
func both[T interface {
	IsValid() bool
	String() string
}](first, second T) string {
	if !second.IsValid() {
		return first.String()
	}
	return first.String() + "," + second.String()
}

// without leaves out of some names what others are.
func without(names, others []string) []string {
	return slices.DeleteFunc(names, func(one string) bool { return slices.Contains(others, one) })
}

func (k *Kubernetes) managerArguments() []string {
	own := append([]string{
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
	}, k.statusArguments(pki.Manager)...)
	if k.cluster.Dual() {
		own = append(
			own,
			"--cluster-cidr="+both(k.cluster.Pods, k.cluster.Second.Pods),
			"--service-cluster-ip-range="+both(k.cluster.Services, k.cluster.Second.Services),
		)
	}
	return settings.Arguments(own, k.settings.ControllerManager.Arguments)
}

func (k *Kubernetes) schedulerArguments() []string {
	own := append([]string{
		"--kubeconfig=" + Kubeconfig(pki.Scheduler),
		"--leader-elect=false",
		"--profiling=false",
	}, k.statusArguments(pki.Scheduler)...)
	return settings.Arguments(own, k.settings.Scheduler.Arguments)
}

// statusArguments are those of the listeners on 127.0.0.1, at Kubernetes' own ports, that answer /healthz (to the API
// server, which has it as componentstatuses) and /metrics. A certificate of their own would cost the boot a key.
func (k *Kubernetes) statusArguments(name string) []string {
	return append(k.logArguments(), []string{
		"--bind-address=127.0.0.1",
		"--tls-cert-file=" + certificate(pki.Server),
		"--tls-private-key-file=" + key(pki.Server),
		"--client-ca-file=" + certificate(pki.CA),
		"--authentication-kubeconfig=" + Kubeconfig(name),
		"--authentication-skip-lookup=true", // of what --client-ca-file says
		"--authorization-kubeconfig=" + Kubeconfig(name),
	}...)
}

// logArguments are what each component is told of its log: the same, for it is one.
func (k *Kubernetes) logArguments() []string {
	if k.settings.Verbosity == 0 {
		return nil
	}
	return []string{"--v=" + strconv.Itoa(k.settings.Verbosity)}
}

func (k *Kubernetes) kubeletArguments() []string {
	own := []string{
		"--config=" + KubeletConfig,
		"--kubeconfig=" + Kubeconfig(pki.NodeClient),
		"--hostname-override=" + k.cluster.NodeName,
		"--node-ip=" + both(k.cluster.NodeAddress, k.cluster.Second.NodeAddress),
		"--cert-dir=/var/lib/kubelet/pki",
	}
	own = append(own, k.logArguments()...)
	if k.apiserver == nil && len(k.settings.FeatureGates) > 0 {
		own = append(own, "--feature-gates="+settings.Assigned(k.settings.FeatureGates))
	}
	if len(k.settings.Kubelet.Configuration) > 0 {
		own = append(own, "--config-dir="+kubeletFolder)
	}
	if len(k.settings.Node.Labels) > 0 {
		own = append(own, "--node-labels="+settings.Labelled(k.settings.Node.Labels))
	}
	return settings.Arguments(own, k.settings.Kubelet.Arguments)
}
