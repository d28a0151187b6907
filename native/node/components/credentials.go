package components

import (
	"time"

	"sandkube/node/cluster"
	"sandkube/node/pki"
)

// Credentials makes those of the cluster, for clients that reach the API at server; returns the administrator's
// kubeconfig.
func Credentials(of cluster.Cluster, server string) ([]byte, error) {
	return pki.Cluster(PKI, server, pki.Names{
		Node:           of.NodeName,
		NodeAddress:    of.NodeAddress.AsSlice(),
		ServiceAddress: of.API.AsSlice(),
		Domain:         of.Domain,
	}, time.Now())
}
