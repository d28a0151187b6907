// Command podnet is the CNI plugin of the node: it gives each pod a routed
// veth and an IPv4 address, with no netfilter rule.
//
// The host end of the veth carries the gateway address as a /32 and a
// link-scope route to the pod; the pod carries its own /32, a link-scope route
// to the gateway and a default route through it. gVisor's network stack
// accepts exactly that shape: routes that name their device and carry no
// source address. In a cluster of dual stack all of it is there in IPv6 as well
// (key "second"), with an address of the same number; a lease is of both.
//
// A node whose network stack does not forward between devices makes a bridge
// (key "bridge" of the configuration). There the host end is a port of it, the
// pod's address is one of the subnet, and the bridge has the gateway's.
//
// State lives below /run, which is a tmpfs of the node, so it has the life
// span of the network devices it describes:
//
//	/run/sandkube/podnet/lock        flock(2) around every change of a lease
//	/run/sandkube/podnet/last        the address that was given out last
//	/run/sandkube/podnet/leases/IP   one JSON file an address in use
//	/run/sandkube/hostports/ID.json  host ports of a pod, served by the node's Service proxy
package main

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	leaseFolder    = "/run/sandkube/podnet"
	hostPortFolder = "/run/sandkube/hostports"

	// errNotAvailable is the answer to STATUS when ADD cannot work (CNI 1.1, "Error").
	errNotAvailable = 50
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    add,
		Del:    del,
		Check:  check,
		GC:     gc,
		Status: status,
	}, version.All, "podnet: routed veth pairs for the pods of one node")
}

func add(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := refuseHostPorts(conf); err != nil {
		return err
	}
	owner, err := parsePod(args.Args)
	if err != nil {
		return err
	}
	id := attachment{ContainerID: args.ContainerID, IfName: args.IfName}
	leases, err := openLeases(leaseFolder)
	if err != nil {
		return err
	}
	defer leases.Close()
	address, err := leases.Allocate(conf, lease{attachment: id, Netns: args.Netns, Pod: owner})
	if err != nil {
		return err
	}
	result, err := connect(conf, id, args.Netns, address)
	if err == nil {
		err = writeHostPorts(hostPortFolder, id, conf, address)
	}
	if err != nil {
		// What failed matters more than what the roll-back meets.
		_ = disconnect(id)
		_ = removeHostPorts(hostPortFolder, id)
		_ = leases.Release(id)
		return err
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// del succeeds when there is nothing left to remove: the runtime repeats DEL
// until it does, and calls it after the network namespace has gone.
func del(args *skel.CmdArgs) error {
	if _, err := parseConfig(args.StdinData); err != nil {
		return err
	}
	id := attachment{ContainerID: args.ContainerID, IfName: args.IfName}
	return detach(id)
}

// detach frees the address last: while it is leased no other pod can get it
// and meet the old route.
func detach(id attachment) error {
	if err := removeHostPorts(hostPortFolder, id); err != nil {
		return err
	}
	if err := disconnect(id); err != nil {
		return err
	}
	leases, err := openLeases(leaseFolder)
	if err != nil {
		return err
	}
	defer leases.Close()
	return leases.Release(id)
}

func check(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if conf.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "CHECK needs prevResult", "")
	}
	previous, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return err
	}
	id := attachment{ContainerID: args.ContainerID, IfName: args.IfName}
	leases, err := openLeases(leaseFolder)
	if err != nil {
		return err
	}
	defer leases.Close()
	address, found, err := leases.Find(id)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("no address is leased to %s", id)
	}
	if !slices.Equal(recorded(previous), conf.sides(address)) {
		return fmt.Errorf("%s holds %s, the recorded result says otherwise", id, address)
	}
	return verify(conf, id, args.Netns, address)
}

// recorded are the sides that a result tells.
func recorded(result *current.Result) []side {
	var all []side
	for _, each := range result.IPs {
		address, _ := netip.AddrFromSlice(each.Address.IP)
		gateway, _ := netip.AddrFromSlice(each.Gateway)
		all = append(all, side{address.Unmap(), gateway.Unmap()})
	}
	return all
}

// gc removes what belongs to attachments that the runtime no longer knows.
func gc(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	valid := make(map[attachment]bool, len(conf.ValidAttachments))
	for _, a := range conf.ValidAttachments {
		valid[attachment{ContainerID: a.ContainerID, IfName: a.IfName}] = true
	}
	leases, err := openLeases(leaseFolder)
	if err != nil {
		return err
	}
	held, err := leases.Attachments()
	leases.Close()
	if err != nil {
		return err
	}
	for _, id := range held {
		if valid[id] {
			continue
		}
		if err := detach(id); err != nil {
			return err
		}
	}
	return nil
}

// status answers whether ADD can work: the lease folder must be writable.
func status(args *skel.CmdArgs) error {
	if _, err := parseConfig(args.StdinData); err != nil {
		return err
	}
	leases, err := openLeases(leaseFolder)
	if err != nil {
		return types.NewError(errNotAvailable, "lease folder is not usable", err.Error())
	}
	leases.Close()
	return nil
}
