package main

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic        = 1
	maxWaiting = 1024 // connections that the host has not answered yet; more are asked for again by their clients
	block      = 64 << 10
	grace      = 5 * time.Second // for the host to hear of a reset
)

// outlet is the network stack to which all addresses outside are its own.
type outlet struct {
	host  *host
	stack *stack.Stack
	names netip.Addr
}

// newLink is what packets come to the stack by, and go from it. Checksums of what comes are not looked at: it was never on a
// wire, and the node leaves some to a device to fill in.
func newLink() *channel.Endpoint {
	link := channel.New(queued, mtu, "")
	link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	return link
}

func newOutlet(host *host, link stack.LinkEndpoint, names netip.Addr) (*outlet, error) {
	one := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	o := &outlet{host: host, stack: one, names: names}
	if err := o.configure(link); err != nil {
		return nil, fmt.Errorf("the network stack: %s", err)
	}
	forwarder := tcp.NewForwarder(one, 0, maxWaiting, o.forward)
	one.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	return o, o.listenForNames()
}

func (o *outlet) configure(link stack.LinkEndpoint) tcpip.Error {
	if err := o.stack.CreateNIC(nic, link); err != nil {
		return err
	}
	if err := o.stack.SetPromiscuousMode(nic, true); err != nil { // takes packets to all addresses
		return err
	}
	if err := o.stack.SetSpoofing(nic, true); err != nil { // and answers from them
		return err
	}
	own := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: addressOf(o.names).WithPrefix()}
	if err := o.stack.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
		return err
	}
	o.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	sack := tcpip.TCPSACKEnabled(true)
	if err := o.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return err
	}
	// Nothing is late on this link, and a forwarder has no listener that takes a port of the last minute again.
	again := tcpip.TCPTimeWaitTimeoutOption(10 * time.Millisecond)
	if err := o.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &again); err != nil {
		return err
	}
	recovery := tcpip.TCPRecovery(0) // RACK stalls on bursts of small frames over fast links, as in the node
	return o.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &recovery)
}

func addressOf(address netip.Addr) tcpip.Address { return tcpip.AddrFrom4(address.As4()) }

func portOf(address tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(address.As4()), port)
}

// forward answers a client's first packet: not before the host has the other half of the connection, or knows that there is
// none. Of one that nothing answers, nothing is heard here either.
func (o *outlet) forward(request *tcp.ForwarderRequest) {
	id := request.ID()
	said := o.host.connect(portOf(id.RemoteAddress, id.RemotePort), portOf(id.LocalAddress, id.LocalPort))
	if said.stream == nil {
		request.Complete(said.Refused)
		return
	}
	defer said.stream.Close()
	defer o.host.forget(said.ID)
	var queue waiter.Queue
	end, err := request.CreateEndpoint(&queue)
	request.Complete(false)
	if err != nil { // the client has gone
		o.resetHost(said)
		return
	}
	end.SocketOptions().SetKeepAlive(true) // a pod may go without a word
	idle := tcpip.KeepaliveIdleOption(time.Minute)
	_ = end.SetSockOpt(&idle)
	o.join(said, end, gonet.NewTCPConn(&queue, end))
}

// join copies both ways until both have ended. The end of one direction is passed on as such, and a reset as a reset.
func (o *outlet) join(said reply, end tcpip.Endpoint, conn *gonet.TCPConn) {
	defer conn.Close()
	ended := make(chan struct{})
	var both, watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-said.reset:
			end.Abort()
			_ = said.stream.Close()
		case <-ended:
		}
	})
	broken := sync.OnceFunc(func() {
		end.Abort()
		o.resetHost(said)
		_ = said.stream.Close()
	})
	both.Go(func() {
		if pass(said.stream, conn) != nil {
			broken()
		}
	})
	both.Go(func() {
		if pass(conn, said.stream) != nil {
			broken()
		}
	})
	both.Wait()
	close(ended)
	watching.Wait()
}

// resetHost has the host reset its half. The stream stays open until it has: its end alone would be passed on as an end.
func (o *outlet) resetHost(said reply) {
	select {
	case <-said.reset:
		return // by which it began
	default:
	}
	o.host.reset(said.ID)
	select {
	case <-said.reset: // the host says so when it has
	case <-time.After(grace):
	}
}

type halfCloser interface {
	io.ReadWriter
	CloseWrite() error
}

// pass copies to the end, through a buffer: splice(2) between sockets of the host and of the sandbox is for nobody to try.
func pass(to, from halfCloser) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, block)); err != nil {
		return err
	}
	_ = to.CloseWrite()
	return nil
}
