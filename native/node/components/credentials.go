package components

import (
	"path/filepath"
	"time"

	"sandkube/node/cluster"
	"sandkube/node/pki"
)

// Credentials makes those of the cluster, for clients that reach the API at server; returns the administrator's
// kubeconfig.
func Credentials(of cluster.Cluster, server string) ([]byte, error) {
	return pki.Cluster(PKI, server, names(of), time.Now())
}

// MemberCredentials makes those of a further node, below its folder.
func MemberCredentials(of cluster.Cluster, folder string) error {
	return pki.Member(PKI, filepath.Join(folder, PKI), of.Server(), names(of), time.Now())
}

func names(of cluster.Cluster) pki.Names {
	return pki.Names{
		Node:           of.NodeName,
		NodeAddress:    of.NodeAddress.AsSlice(),
		ServiceAddress: of.API.AsSlice(),
		Domain:         of.Domain,
	}
}
