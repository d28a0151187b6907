// Package cluster says what a cluster of ours is called and where it is. All that needs an address or a name has it from
// here: the programs' arguments, the certificates, and the files below /etc/sandkube, which are templates.
package cluster

import (
	"math/big"
	"net/netip"
	"strconv"
)

// Cluster is one cluster, as one of its nodes sees it. Ranges are IPv4; one of dual stack has those of its second family beside
// them.
type Cluster struct {
	NodeName      string
	Number        int          // of the node: 1 is the first, which has the control plane
	Nodes         int          // how many there are
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
	Memory        uint64     // bytes that all of it may take of its machine; 0 for no bound
	Outside       netip.Addr // where names outside are asked for; none where there is no way out
	Second        Family     // nothing but in a cluster of dual stack
}

// Family is what a cluster of dual stack has in IPv6. The API's Service and the DNS server are in the first family only.
type Family struct {
	Pods          netip.Prefix // a pod has the address of the same number as in the first family
	NodeAddress   netip.Addr
	Services      netip.Prefix
	LoadBalancers netip.Prefix
}

// DefaultSecond is the second family of a cluster of dual stack where nobody wants another.
var DefaultSecond = Family{
	Pods:          netip.MustParsePrefix("fd00:10:88::/64"),
	Services:      netip.MustParsePrefix("fd00:10:96::/112"),
	LoadBalancers: netip.MustParsePrefix("fd00:10:97::/120"),
}

// With is the cluster with a second family, and with the address that the node has in it.
func (c Cluster) With(second Family) Cluster {
	c.Second = second
	c.Second.NodeAddress = nth(second.Pods, 1)
	return c
}

// Dual says whether there is a second family.
func (c Cluster) Dual() bool { return c.Second.Pods.IsValid() }

// InSecond is the cluster as it is in its second family.
func (c Cluster) InSecond() Cluster {
	c.Pods, c.NodeAddress, c.Services, c.LoadBalancers = c.Second.Pods, c.Second.NodeAddress, c.Second.Services, c.Second.LoadBalancers
	c.API, c.DNS, c.Second = netip.Addr{}, netip.Addr{}, Family{}
	return c
}

// NodeAddresses are those of the node, one a family.
func (c Cluster) NodeAddresses() []netip.Addr {
	if !c.Dual() {
		return []netip.Addr{c.NodeAddress}
	}
	return []netip.Addr{c.NodeAddress, c.Second.NodeAddress}
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

// NamesOutside is where the way out answers queries for names, if there is one (sandkube/cluster/destinations.py).
var NamesOutside = netip.AddrFrom4([4]byte{169, 254, 88, 2})

// Storage is the folder of claims: volumes of the class local-path are folders in it.
const Storage = "/var/lib/sandkube/storage"

// Default is the cluster of a node that nobody told anything else.
var Default = Cluster{
	NodeName:      "runsc",
	Number:        1,
	Nodes:         1,
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

// Member is the cluster as another node sees it, for the first one: its name ends in its number, and it has a range of pods of
// its own, as large as the first one's and behind it.
func (c Cluster) Member(number int) Cluster {
	if number == 1 {
		return c
	}
	c.Number = number
	c.NodeName += c.Suffix()
	c.Pods = later(c.Pods, number-1)
	c.NodeAddress = nth(c.Pods, 1)
	if c.Dual() {
		c.Second.Pods = later(c.Second.Pods, number-1)
		c.Second.NodeAddress = nth(c.Second.Pods, 1)
	}
	return c
}

// Leases is the folder in which podnet keeps who has which address of a node; each node has its own.
const Leases = "/run/sandkube/podnet/leases"

// Folder is where the first node finds what another has as its own below /run, /tmp and /var; "" for itself.
// Names are short: a socket's path has 108 bytes at most.
func (c Cluster) Folder() string {
	if c.Number == 1 {
		return ""
	}
	return "/run/sandkube/nodes/" + strconv.Itoa(c.Number)
}

// Members are those of all nodes, for the first one.
func (c Cluster) Members() []Cluster {
	all := make([]Cluster, 0, c.Nodes)
	for number := 1; number <= c.Nodes; number++ {
		all = append(all, c.Member(number))
	}
	return all
}

// Suffix is behind the names of a further node's components: "-2".
func (c Cluster) Suffix() string {
	if c.Number == 1 {
		return ""
	}
	return "-" + strconv.Itoa(c.Number)
}

// Cgroup is below which the node's kubelet has its own: it removes what it does not know there.
func (c Cluster) Cgroup() string {
	if c.Number == 1 {
		return "/"
	}
	return "/nodes/" + c.NodeName
}

// later is the range that is so many ranges of the same size behind one.
func later(prefix netip.Prefix, count int) netip.Prefix {
	bytes := prefix.Addr().AsSlice()
	size := new(big.Int).Lsh(big.NewInt(1), uint(8*len(bytes)-prefix.Bits()))
	number := new(big.Int).SetBytes(bytes)
	number.Add(number, size.Mul(size, big.NewInt(int64(count))))
	address, _ := netip.AddrFromSlice(number.FillBytes(bytes)) // of as many bytes as before
	return netip.PrefixFrom(address, prefix.Bits())
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
