// Package cluster says what a cluster of ours is called and where it is. All that needs an address or a name has it from
// here: the programs' arguments, the certificates, and the files below /etc/sandkube, which are templates.
package cluster

import (
	"net/netip"
	"strconv"
)

// Cluster is one cluster of one node. Ranges are IPv4.
type Cluster struct {
	NodeName      string
	Domain        string       // of the names of Services and pods
	Pods          netip.Prefix // the node's address is in it
	NodeAddress   netip.Addr
	Bridge        string       // the device of the pods, where they need one
	Services      netip.Prefix // the API's and the DNS server's are in it
	LoadBalancers netip.Prefix // Services of type LoadBalancer have addresses of it
	API           netip.Addr   // Service default/kubernetes: the first of the range, as the API server has it
	DNS           netip.Addr
	APIPort       uint16
	KubeletPort   uint16
	Memory        uint64 // bytes that all of it may take of its machine; 0 for no bound
}

// Around is what a bounded cluster takes of its machine beside what its kernel knows of: gVisor's own, and the supervisor.
const Around = 160 << 20

// least is what the kubelet leaves free before it ends pods.
const least = 50 << 20

// Usable is the memory of a machine with so much of it that the cluster may fill.
func (c Cluster) Usable(total uint64) uint64 {
	if c.Memory == 0 || c.Memory-Around > total {
		return total
	}
	return c.Memory - Around
}

// Spare is what is to be left of a machine's memory: the kubelet ends pods when there is less, and promises less to pods.
func (c Cluster) Spare(total uint64) uint64 { return total - c.Usable(total) + least }

// Storage is the folder of claims: volumes of the class local-path are folders in it.
const Storage = "/var/lib/sandkube/storage"

// Default is the cluster of a node that nobody told anything else.
var Default = Cluster{
	NodeName:      "runsc",
	Domain:        "cluster.local",
	Bridge:        "pods",
	LoadBalancers: netip.MustParsePrefix("10.97.0.0/24"),
	APIPort:       6443,
	KubeletPort:   10250,
}.In(netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("10.96.0.0/16"))

// In is the cluster with other ranges, and with the addresses that it has in them.
func (c Cluster) In(pods, services netip.Prefix) Cluster {
	c.Pods, c.NodeAddress = pods, nth(pods, 1)
	c.Services, c.API, c.DNS = services, nth(services, 1), nth(services, 10)
	return c
}

func nth(prefix netip.Prefix, number int) netip.Addr {
	address := prefix.Addr()
	for range number {
		address = address.Next()
	}
	return address
}

// Server is the API's address for clients in the node.
func (c Cluster) Server() string { return "https://127.0.0.1:" + strconv.Itoa(int(c.APIPort)) }
