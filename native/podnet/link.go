package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hostName is the name of the veth's host end: the same for every command on
// an attachment, so that DEL needs no record, and at most 15 bytes
// (IFNAMSIZ-1).
func hostName(id attachment) string {
	sum := sha256.Sum256([]byte(id.String()))
	return "pod" + hex.EncodeToString(sum[:6])
}

// Handles are opened for NETLINK_ROUTE only: gVisor lacks other families that
// the package opens by default.
func hostHandle() (*netlink.Handle, error) {
	return netlink.NewHandle(unix.NETLINK_ROUTE)
}

// connect makes the veth pair and its addresses and routes on both sides.
func connect(conf *config, id attachment, netnsPath string, address netip.Addr) (*current.Result, error) {
	namespace, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", netnsPath, err)
	}
	defer namespace.Close()
	host, err := hostHandle()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	pod, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", netnsPath, err)
	}
	defer pod.Close()

	// A host end of this name is what a crashed ADD left behind.
	if err := removeLink(host, hostName(id)); err != nil {
		return nil, err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = hostName(id)
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: id.IfName, PeerNamespace: netlink.NsFd(int(namespace))}
	if err := host.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", attributes.Name, err)
	}
	if err := loopbackUp(pod); err != nil {
		return nil, err
	}
	bridge, err := findBridge(host, conf)
	if err != nil {
		return nil, err
	}
	own := hostNet(address)
	outside, err := outer(host, hostName(id), conf, address, bridge)
	if err != nil {
		return nil, err
	}
	if bridge != nil {
		own.Mask = net.CIDRMask(conf.Subnet.Bits(), 32)
	}
	inside, err := configure(pod, id.IfName, own, conf.Gateway, conf.Gateway)
	if err != nil {
		return nil, err
	}
	made := result(conf, netnsPath, own, outside, inside)
	if conf.Second != nil {
		second, gateway := hostNet(conf.second(address)), conf.Second.Gateway
		if _, err := configure(pod, id.IfName, second, gateway, gateway); err != nil {
			return nil, err
		}
		made.IPs = append(made.IPs, &current.IPConfig{Interface: current.Int(1), Address: *second, Gateway: gateway.AsSlice()})
	}
	return made, nil
}

// outer sets up the host end: a port of the bridge, or a link of its own with the gateways' addresses.
func outer(host *netlink.Handle, name string, conf *config, address netip.Addr, bridge netlink.Link) (link netlink.Link, err error) {
	if bridge != nil {
		return join(host, name, bridge)
	}
	for _, each := range conf.sides(address) {
		if link, err = configure(host, name, hostNet(each.gateway), each.address, netip.Addr{}); err != nil {
			return nil, err
		}
	}
	return link, nil
}

// findBridge returns nil if the node made none.
func findBridge(h *netlink.Handle, conf *config) (netlink.Link, error) {
	if conf.Bridge == "" {
		return nil, nil
	}
	link, err := h.LinkByName(conf.Bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", conf.Bridge, err)
	}
	return link, nil
}

// join makes a link a port of the bridge and sets it up.
func join(h *netlink.Handle, name string, bridge netlink.Link) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if err := h.LinkSetMaster(link, bridge); err != nil {
		return nil, fmt.Errorf("put %s on %s: %w", name, bridge.Attrs().Name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return link, nil
}

// configure gives a link its address, sets it up and adds the link-scope route to
// the other side, then the default route where a gateway is named.
func configure(h *netlink.Handle, name string, own *net.IPNet, peer, gateway netip.Addr) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	// Nobody else is on the link, so Linux need not look for others with an address of IPv6, which would take its time.
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: own, Flags: flagsOf(peer)}); err != nil {
		return nil, fmt.Errorf("add %s to %s: %w", own, name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	index := link.Attrs().Index
	direct := &netlink.Route{LinkIndex: index, Dst: hostNet(peer), Scope: netlink.SCOPE_LINK}
	if err := h.RouteAdd(direct); err != nil {
		return nil, fmt.Errorf("add route to %s dev %s: %w", peer, name, err)
	}
	if gateway.IsValid() {
		bits := gateway.BitLen()
		everything := &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
		route := &netlink.Route{LinkIndex: index, Dst: everything, Gw: gateway.AsSlice()}
		if err := h.RouteAdd(route); err != nil {
			return nil, fmt.Errorf("add default route via %s dev %s: %w", gateway, name, err)
		}
	}
	return link, nil
}

func flagsOf(address netip.Addr) int {
	if address.Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}

// loopbackUp also adds 127.0.0.1/8 where setting the link up does not, as
// Linux does of itself.
func loopbackUp(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	addresses, err := h.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of lo: %w", err)
	}
	if len(addresses) > 0 {
		return nil
	}
	local := &net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(8, 32)}
	if err := h.AddrAdd(lo, &netlink.Addr{IPNet: local}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add 127.0.0.1/8 to lo: %w", err)
	}
	return nil
}

// disconnect removes the host end; the kernel removes the other with it.
func disconnect(id attachment) error {
	host, err := hostHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	return removeLink(host, hostName(id))
}

func removeLink(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	// The pod's namespace may be dismantled at this moment and take the link along.
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// verify tells the first difference between the devices and what connect made.
func verify(conf *config, id attachment, netnsPath string, address netip.Addr) error {
	namespace, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", netnsPath, err)
	}
	defer namespace.Close()
	host, err := hostHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	pod, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in %s: %w", netnsPath, err)
	}
	defer pod.Close()
	bridge, err := findBridge(host, conf)
	if err != nil {
		return err
	}
	if bridge != nil {
		if err := verifyPort(host, hostName(id), bridge); err != nil {
			return err
		}
	}
	for _, each := range conf.sides(address) {
		if bridge == nil {
			if err := verifyAddress(host, hostName(id), each.gateway); err != nil {
				return err
			}
		}
		if err := verifyAddress(pod, id.IfName, each.address); err != nil {
			return err
		}
	}
	return nil
}

func verifyPort(h *netlink.Handle, name string, bridge netlink.Link) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		return fmt.Errorf("%s is not on %s", name, bridge.Attrs().Name)
	}
	return nil
}

func verifyAddress(h *netlink.Handle, name string, want netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	addresses, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, have := range addresses {
		if have.IP.Equal(want.AsSlice()) {
			return nil
		}
	}
	return fmt.Errorf("%s does not carry %s", name, want)
}

func result(conf *config, netnsPath string, own *net.IPNet, outside, inside netlink.Link) *current.Result {
	return &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: outside.Attrs().Name, Mac: outside.Attrs().HardwareAddr.String()},
			{Name: inside.Attrs().Name, Mac: inside.Attrs().HardwareAddr.String(), Sandbox: netnsPath},
		},
		IPs: []*current.IPConfig{{
			Interface: current.Int(1),
			Address:   *own,
			Gateway:   conf.Gateway.AsSlice(),
		}},
		DNS: conf.DNS,
	}
}

func hostNet(address netip.Addr) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}
}
