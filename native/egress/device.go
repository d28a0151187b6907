package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	deviceName = "egress"
	mtu        = 1500
	queued     = 4096 // packets that wait for the device
)

// device is a network device of the node whose packets are read and written here. It goes with the process.
type device struct{ file *os.File }

// newDevice makes the device and has everything led there that the node has no other route for.
func newDevice(own netip.Addr) (*device, error) {
	descriptor, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no way out of this sandbox: /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(deviceName)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(descriptor, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("there is no way out of this sandbox: a device for it is refused: %w", err)
	}
	if err := lead(own); err != nil {
		return nil, err
	}
	return &device{os.NewFile(uintptr(descriptor), deviceName)}, nil
}

// lead gives the device its address and the default route. The handle is for NETLINK_ROUTE only: gVisor lacks other families.
func lead(own netip.Addr) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	link, err := handle.LinkByName(deviceName)
	if err != nil {
		return fmt.Errorf("finding the device: %w", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	if err := handle.AddrAdd(link, address); err != nil {
		return fmt.Errorf("giving the device %s: %w", own, err)
	}
	if err := handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing the device up: %w", err)
	}
	everything := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everything, Scope: netlink.SCOPE_LINK}
	if err := handle.RouteAdd(route); err != nil {
		return fmt.Errorf("leading what is outside to the device: %w", err)
	}
	return nil
}

// receive hands on what the node sends. Of what is neither TCP nor UDP nothing is answered: a stack that takes all addresses
// for its own would say that every one of them can be pinged.
func (d *device) receive(link *channel.Endpoint) error {
	packet := make([]byte, 1<<16)
	for {
		length, err := d.file.Read(packet)
		if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) { // of a packet that the device has no more
			continue
		}
		if err != nil {
			return fmt.Errorf("reading from the device: %w", err)
		}
		if passes(packet[:length]) {
			inject(link, packet[:length])
		}
	}
}

func passes(packet []byte) bool {
	if header.IPVersion(packet) != header.IPv4Version || len(packet) < header.IPv4MinimumSize {
		return false
	}
	protocol := header.IPv4(packet).TransportProtocol()
	return protocol == header.TCPProtocolNumber || protocol == header.UDPProtocolNumber
}

func inject(link *channel.Endpoint, packet []byte) {
	made := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	defer made.DecRef()
	link.InjectInbound(header.IPv4ProtocolNumber, made)
}

// send hands on what the stack says. A packet that the node does not take now is lost, as any may be.
func (d *device) send(link *channel.Endpoint) error {
	for {
		packet := link.ReadContext(context.Background())
		if packet == nil {
			return errors.New("the network stack ended")
		}
		view := packet.ToView()
		_, err := d.file.Write(view.AsSlice())
		view.Release()
		packet.DecRef()
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("writing to the device: %w", err)
		}
	}
}
