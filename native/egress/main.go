// Command sandkube-egress is the way out of a node's network, for TCP and for names outside: what the node forwards to no pod
// comes to a device of this program, whose own network stack (gVisor's, as a library) answers only when the host has the
// other half of a connection. So who is refused there is refused here, and nobody is told that he is connected who is not.
//
//	sandkube-egress OWN NAMES      sandkube/cluster/outlet.py starts it, in the node's network
//
// OWN is the address of the device, from which the node itself goes out; at NAMES, port 53, queries are answered. The host
// (sandkube/cluster/egress.py) is at the other end of the socket of packets on standard input: it says who may go where, makes
// the connections, and asks for names. Nothing else of the host is known here. The program ends when that socket is closed;
// exit status 3 says that it cannot do its work in this place.
package main

import (
	"fmt"
	"net/netip"
	"os"
)

const cannot = 3

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(cannot)
	}
}

func run(words []string) error {
	if len(words) != 2 {
		return fmt.Errorf("two addresses are wanted, not %d", len(words))
	}
	var addresses [2]netip.Addr
	for at, word := range words {
		address, err := netip.ParseAddr(word)
		if err != nil || !address.Is4() {
			return fmt.Errorf("%q is no IPv4 address", word)
		}
		addresses[at] = address
	}
	host, err := newHost(os.Stdin)
	if err != nil {
		return err
	}
	link := newLink()
	if _, err := newOutlet(host, link, addresses[1]); err != nil {
		return err
	}
	device, err := newDevice(addresses[0])
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	go func() { ended <- device.receive(link) }()
	go func() { ended <- device.send(link) }()
	go func() { ended <- host.listen() }()
	host.ready()
	return <-ended
}
