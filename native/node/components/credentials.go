package components

import (
	"net"
	"time"

	"sandkube/node/boot"
	"sandkube/node/pki"
)

// Credentials makes those of the cluster, for clients that reach the API at server; returns the administrator's
// kubeconfig.
func Credentials(server string) ([]byte, error) {
	return pki.Cluster(PKI, server, pki.Names{
		Node:           NodeName,
		NodeAddress:    net.ParseIP(boot.NodeAddress),
		ServiceAddress: net.ParseIP(ServiceAddress),
		Domain:         Domain,
	}, time.Now())
}
