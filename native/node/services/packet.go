package services

import (
	"cmp"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	maxPacket = 64 << 10
	// atOnce bounds the packets in memory, of all frontends and flows together: 2 MB.
	atOnce = 32
)

// buffers hold one packet each. A socket without a packet holds none: a flow costs what its socket and a small stack cost.
var buffers = func() chan []byte {
	all := make(chan []byte, atOnce)
	for range atOnce {
		all <- nil // made when it is first needed
	}
	return all
}()

// packet is one that was received; done gives its buffer back.
type packet struct {
	data   []byte
	from   netip.AddrPort
	buffer []byte
}

func (p packet) done() { buffers <- p.buffer }

// receive waits for a packet; the socket's error if there is one. It waits for the packet first, then for a buffer, and
// for neither while it holds the descriptor: closing a socket waits for whoever does.
func receive(conn syscall.RawConn) (packet, error) {
	for {
		if err := await(conn); err != nil {
			return packet{}, err
		}
		buffer := <-buffers
		if buffer == nil {
			buffer = make([]byte, maxPacket)
		}
		var length int
		var from unix.Sockaddr
		var failure error
		err := conn.Read(func(descriptor uintptr) bool {
			length, from, failure = receiveNow(int(descriptor), buffer, 0)
			return true
		})
		if err = cmp.Or(err, failure); err == nil {
			return packet{data: buffer[:length], from: source(from), buffer: buffer}, nil
		}
		buffers <- buffer
		if err != unix.EAGAIN {
			return packet{}, err
		}
	}
}

// await returns when there is a packet.
func await(conn syscall.RawConn) error {
	var failure error
	err := conn.Read(func(descriptor uintptr) bool {
		_, _, failure = receiveNow(int(descriptor), nil, unix.MSG_PEEK)
		return failure != unix.EAGAIN
	})
	return cmp.Or(err, failure)
}

func receiveNow(descriptor int, buffer []byte, flags int) (int, unix.Sockaddr, error) {
	for {
		length, from, err := unix.Recvfrom(descriptor, buffer, flags|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return length, from, err
		}
	}
}

// source is invalid for a connected socket on systems that do not say it.
func source(from unix.Sockaddr) netip.AddrPort {
	switch address := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(address.Addr), uint16(address.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(address.Addr), uint16(address.Port))
	}
	return netip.AddrPort{}
}
