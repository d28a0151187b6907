package services

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// owner owns addresses on one device, each alone.
type owner struct {
	handle *netlink.Handle
	device netlink.Link
	found  map[netip.Addr]bool // were there before: not ours to remove
}

// openOwner opens netlink for NETLINK_ROUTE only: gVisor lacks families
// that the package opens by default.
func openOwner(name string) (*owner, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	device, err := handle.LinkByName(name)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return &owner{handle: handle, device: device, found: map[netip.Addr]bool{}}, nil
}

func (o *owner) Close() { o.handle.Close() }

func (o *owner) Add(address netip.Addr) error {
	err := o.handle.AddrAdd(o.device, netlinkAddress(address))
	if errors.Is(err, unix.EEXIST) {
		o.found[address] = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("add %s to %s: %w", address, o.device.Attrs().Name, err)
	}
	return nil
}

func (o *owner) Remove(address netip.Addr) error {
	if o.found[address] {
		delete(o.found, address)
		return nil
	}
	if err := o.handle.AddrDel(o.device, netlinkAddress(address)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove %s from %s: %w", address, o.device.Attrs().Name, err)
	}
	return nil
}

func netlinkAddress(address netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}}
}
