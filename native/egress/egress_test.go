package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

var (
	podAddress = netip.MustParseAddr("10.88.0.5")
	namesAt    = netip.MustParseAddr("169.254.88.2")
	elsewhere  = netip.MustParseAddrPort("192.0.2.7:80")
)

const patient = 20 * time.Second

// bed is an outlet, a pod's network stack at the other end of its link, and the host.
type bed struct {
	t       *testing.T
	pod     *stack.Stack
	control *net.UnixConn
}

func lay(t *testing.T) *bed {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	host, err := newHost(os.NewFile(uintptr(pair[0]), "control"))
	if err != nil {
		t.Fatal(err)
	}
	link := newLink()
	if _, err := newOutlet(host, link, namesAt); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- host.listen() }()
	theirs := channel.New(queued, mtu, "")
	b := &bed{t: t, pod: newPod(t, theirs), control: unixConn(t, pair[1])}
	ctx, stop := context.WithCancel(context.Background())
	go carry(ctx, theirs, link)
	go carry(ctx, link, theirs)
	t.Cleanup(func() {
		b.control.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stop()
	})
	return b
}

func unixConn(t *testing.T, descriptor int) *net.UnixConn {
	t.Helper()
	file := os.NewFile(uintptr(descriptor), "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patient))
	return conn.(*net.UnixConn)
}

func newPod(t *testing.T, link stack.LinkEndpoint) *stack.Stack {
	t.Helper()
	pod := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := pod.CreateNIC(nic, link); err != nil {
		t.Fatal(err)
	}
	own := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: addressOf(podAddress).WithPrefix()}
	if err := pod.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	pod.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return pod
}

// carry is what the device and the node do between the two.
func carry(ctx context.Context, from, to *channel.Endpoint) {
	for {
		packet := from.ReadContext(ctx)
		if packet == nil {
			return
		}
		view := packet.ToView()
		if data := view.AsSlice(); passes(data) || header.IPv4(data).TransportProtocol() == header.ICMPv4ProtocolNumber {
			inject(to, data)
		}
		view.Release()
		packet.DecRef()
	}
}

func full(at netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: addressOf(at.Addr()), Port: at.Port()}
}

type dialled struct {
	conn *gonet.TCPConn
	err  error
}

// dial is what a pod does, from a port or, without one, from a free one; the host has still to answer.
func (b *bed) dial(ctx context.Context, port ...uint16) <-chan dialled {
	done := make(chan dialled, 1)
	var from tcpip.FullAddress
	for _, each := range port {
		from = full(netip.AddrPortFrom(podAddress, each))
	}
	go func() {
		conn, err := gonet.DialTCPWithBind(ctx, b.pod, from, full(elsewhere), ipv4.ProtocolNumber)
		if conn != nil {
			_ = conn.SetDeadline(time.Now().Add(patient))
		}
		done <- dialled{conn, err}
	}()
	return done
}

func (b *bed) asked() request {
	b.t.Helper()
	data := make([]byte, longest)
	length, err := b.control.Read(data)
	var found request
	if err == nil {
		err = json.Unmarshal(data[:length], &found)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

func (b *bed) say(what reply, descriptors ...int) {
	b.t.Helper()
	text, _ := json.Marshal(what)
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	if _, _, err := b.control.WriteMsgUnix(text, rights, nil); err != nil {
		b.t.Fatal(err)
	}
}

// joined is a connection that stands, and the host's stream of it.
func (b *bed) joined(port ...uint16) (uint64, *gonet.TCPConn, *net.UnixConn) {
	b.t.Helper()
	done := b.dial(context.Background(), port...)
	wanted := b.asked()
	if wanted.Connect != elsewhere.String() || netip.MustParseAddrPort(wanted.From).Addr() != podAddress {
		b.t.Fatalf("%+v", wanted)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.say(reply{ID: wanted.ID, Joined: true}, pair[1])
	unix.Close(pair[1])
	stream := unixConn(b.t, pair[0])
	found := <-done
	if found.err != nil {
		b.t.Fatal(found.err)
	}
	b.t.Cleanup(func() { found.conn.Close() })
	return wanted.ID, found.conn, stream
}

// TestBothWays: bytes, many of them, and the end of each direction by itself.
func TestBothWays(t *testing.T) {
	_, conn, stream := lay(t).joined()
	sent := make([]byte, 8<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes: %v", len(got), len(sent), err)
	}
	go func() { _, _ = stream.Write(sent); stream.Close() }()
	if got, err = io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes back: %v", len(got), len(sent), err)
	}
}

// TestAPortIsUsedAgain: a client may come from the port of a connection that has just ended, by the end of the other side.
func TestAPortIsUsedAgain(t *testing.T) {
	b := lay(t)
	for range 3 {
		_, conn, stream := b.joined(40000)
		stream.Close()
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Fatalf("%q: %v", got, err)
		}
		conn.Close()
		time.Sleep(200 * time.Millisecond) // the pod's half has the port until it has heard of the last packet
	}
}

// TestNobodyReads: who writes is held up, and nothing is heaped up here.
func TestNobodyReads(t *testing.T) {
	_, conn, _ := lay(t).joined()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	total := 0
	for piece := make([]byte, 1<<20); total < 1<<30; {
		length, err := conn.Write(piece)
		total += length
		if err != nil {
			break
		}
	}
	if total >= 64<<20 {
		t.Errorf("%d bytes are somewhere", total)
	}
}

// TestTheHostGoesInTheMiddle: what was said to it and not read makes no error of its end, which lay's cleanup looks at.
func TestTheHostGoesInTheMiddle(t *testing.T) {
	b := lay(t)
	b.dial(t.Context())
	raw, err := b.control.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	peeked := func(descriptor uintptr) bool { // waits until the question is there, and leaves it there
		_, _, err = unix.Recvfrom(int(descriptor), make([]byte, longest), unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	}
	if failed := raw.Read(peeked); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
}

func TestRefused(t *testing.T) {
	b := lay(t)
	done := b.dial(context.Background())
	b.say(reply{ID: b.asked().ID, Refused: true})
	if found := <-done; found.err == nil || found.err.Error() != "connect tcp 192.0.2.7:80: connection was refused" {
		t.Error(found.err)
	}
}

// TestSilence: where nothing answers, nothing is answered; a client that tries on asks anew.
func TestSilence(t *testing.T) {
	b := lay(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := b.dial(ctx)
	first := b.asked()
	b.say(reply{ID: first.ID})
	second := b.asked()
	if second.Connect != first.Connect || second.ID == first.ID {
		t.Errorf("%+v", second)
	}
	cancel()
	if found := <-done; !errors.Is(found.err, context.Canceled) {
		t.Error(found.err)
	}
}

func TestResetOutThere(t *testing.T) {
	b := lay(t)
	id, conn, stream := b.joined()
	b.say(reply{ID: id, Reset: true})
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an end, not a reset: %v", err)
	}
	if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestResetInThePod: the stream stays until the host has heard of it.
func TestResetInThePod(t *testing.T) {
	b := lay(t)
	id, conn, stream := b.joined()
	_, _ = stream.Write(make([]byte, 100))
	if _, err := io.ReadFull(conn, make([]byte, 50)); err != nil {
		t.Fatal(err)
	}
	conn.Close() // with bytes that were not read: a reset
	_, _ = stream.Write([]byte("more"))
	if told := b.asked(); !told.Reset || told.ID != id {
		t.Fatalf("%+v", told)
	}
	b.say(reply{ID: id, Reset: true})
	if _, err := io.ReadAll(stream); err != nil {
		t.Error(err)
	}
}

func query(name string) []byte {
	return append([]byte{0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name))}, name+"\x00\x00\x01\x00\x01"...)
}

func TestNames(t *testing.T) {
	b := lay(t)
	at := full(netip.AddrPortFrom(namesAt, namesPort))
	packets, err := gonet.DialUDP(b.pod, nil, &at, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	_ = packets.SetDeadline(time.Now().Add(patient))
	if _, err := packets.Write(query("one")); err != nil {
		t.Fatal(err)
	}
	wanted := b.asked()
	if !bytes.Equal(wanted.Query, query("one")) || wanted.Stream {
		t.Fatalf("%+v", wanted)
	}
	b.say(reply{ID: wanted.ID, Answer: []byte("short")})
	got := make([]byte, 100)
	if length, err := packets.Read(got); err != nil || string(got[:length]) != "short" {
		t.Error(err)
	}

	conn, err := gonet.DialTCP(b.pod, at, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patient))
	for range 2 {
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query("two")))), query("two")...))
		wanted = b.asked()
		if !bytes.Equal(wanted.Query, query("two")) || !wanted.Stream {
			t.Fatalf("%+v", wanted)
		}
		long := bytes.Repeat([]byte("a"), 60000)
		b.say(reply{ID: wanted.ID, Answer: long})
		framed := make([]byte, 2+len(long))
		if _, err := io.ReadFull(conn, framed); err != nil || !bytes.Equal(framed[2:], long) {
			t.Error(err)
		}
	}
}

// TestOtherPackets: UDP is refused, and what is neither UDP nor TCP has no answer.
func TestOtherPackets(t *testing.T) {
	b := lay(t)
	at := full(elsewhere)
	packets, err := gonet.DialUDP(b.pod, nil, &at, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for until := time.Now().Add(patient); ; time.Sleep(time.Millisecond) { // who waits to read is not told of it (gonet)
		_, err := packets.Write([]byte("anybody"))
		if err != nil && strings.HasSuffix(err.Error(), "connection was refused") {
			break
		}
		if err != nil || time.Now().After(until) {
			t.Fatal(err)
		}
	}
	packet := make([]byte, header.IPv4MinimumSize)
	header.IPv4(packet).Encode(&header.IPv4Fields{TotalLength: uint16(len(packet)), Protocol: uint8(header.ICMPv4ProtocolNumber)})
	if passes(packet) || passes(nil) || passes([]byte{0x60}) {
		t.Error("they pass")
	}
}
