package boot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
	"sandkube/node/fixes"
)

// Loopback is the device of the node's addresses where the network stack forwards: one on a bridge without ports cannot be
// reached from pods in gVisor, one on lo can.
const Loopback = "lo"

func network(prefix netip.Prefix) net.IPNet {
	return net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

// Device is the one for addresses of the node and of Services. lo does where the network stack forwards, and asks for
// no bridge. In gVisor, /proc/sys/net/ipv4/ip_forward is the sandbox's own, whoever writes to it: a network namespace that was
// made later does not forward (pkg/sentry/fsimpl/proc, issue 1833). There pods are on a bridge, and it has the addresses.
func Device(plan fixes.Plan, of cluster.Cluster) string {
	if plan.Used(fixes.PodNetwork) == fixes.Bridge {
		return of.Bridge
	}
	return Loopback
}

// Network brings lo up, makes the device if it is a bridge, and gives it addresses of the node.
func Network(device string, of cluster.Cluster, addresses ...netip.Addr) error {
	// The default handle opens families that gVisor lacks.
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer handle.Close()
	link, err := linkUp(handle, Loopback)
	if err != nil {
		return err
	}
	if device == of.Bridge {
		if link, err = bridgeUp(handle, of.Bridge); err != nil {
			return err
		}
	}
	for _, each := range addresses {
		own := network(netip.PrefixFrom(each, each.BitLen()))
		address := &netlink.Addr{IPNet: &own}
		if device == of.Bridge && of.Pods.Contains(each) {
			address.Mask = network(of.Pods).Mask // a route to the pods comes with it
		}
		if err := handle.AddrAdd(link, address); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding %s to %s: %w", each, device, err)
		}
	}
	return nil
}

func linkUp(handle *netlink.Handle, name string) (netlink.Link, error) {
	link, err := handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", name, err)
	}
	if err := handle.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bringing %s up: %w", name, err)
	}
	return link, nil
}

func bridgeUp(handle *netlink.Handle, name string) (netlink.Link, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	if err := handle.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("making bridge %s: %w", name, err)
	}
	return linkUp(handle, name)
}
