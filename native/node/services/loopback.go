package services

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loopback owns addresses on the device lo, each as a /32.
type loopback struct {
	handle *netlink.Handle
	device netlink.Link
	found  map[netip.Addr]bool // were there before: not ours to remove
}

// openLoopback opens netlink for NETLINK_ROUTE only: gVisor lacks families
// that the package opens by default.
func openLoopback() (*loopback, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	device, err := handle.LinkByName("lo")
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("find lo: %w", err)
	}
	return &loopback{handle: handle, device: device, found: map[netip.Addr]bool{}}, nil
}

func (l *loopback) Close() { l.handle.Close() }

func (l *loopback) Add(address netip.Addr) error {
	err := l.handle.AddrAdd(l.device, netlinkAddress(address))
	if errors.Is(err, unix.EEXIST) {
		l.found[address] = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("add %s to lo: %w", address, err)
	}
	return nil
}

func (l *loopback) Remove(address netip.Addr) error {
	if l.found[address] {
		delete(l.found, address)
		return nil
	}
	if err := l.handle.AddrDel(l.device, netlinkAddress(address)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove %s from lo: %w", address, err)
	}
	return nil
}

func netlinkAddress(address netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(32, 32)}}
}
