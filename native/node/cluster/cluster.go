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
}

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
