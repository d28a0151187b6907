package boot

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NodeAddress is the node's own address. It is on lo: one on a bridge without
// ports cannot be reached from pods in gVisor, one on lo can.
const NodeAddress = "10.88.0.1"

// Network brings lo up with addresses of the node.
func Network(addresses ...string) error {
	// The default handle opens families that gVisor lacks.
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	for _, each := range addresses {
		address, err := netlink.ParseAddr(each + "/32")
		if err != nil {
			return err
		}
		if err := handle.AddrAdd(lo, address); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding %s to lo: %w", each, err)
		}
	}
	return nil
}

// Ranges of the addresses that the node and its Services have on lo.
var ranges = []net.IPNet{
	{IP: net.IPv4(10, 88, 0, 0), Mask: net.CIDRMask(24, 32)},
	{IP: net.IPv4(10, 96, 0, 0), Mask: net.CIDRMask(16, 32)},
}

// LeaveNetwork takes them off lo.
func LeaveNetwork() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	addresses, err := handle.AddrList(lo, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("listing addresses of lo: %w", err)
	}
	var all []error
	for _, address := range addresses {
		for _, each := range ranges {
			if each.Contains(address.IP) {
				all = append(all, handle.AddrDel(lo, &netlink.Addr{IPNet: address.IPNet})) // gVisor knows no more of it
			}
		}
	}
	return errors.Join(all...)
}
