package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

const (
	namesPort  = 53
	maxQueries = 256 // that the host has not answered yet; more are lost, and asked again
	maxStreams = 64  // connections with queries
	patience   = 30 * time.Second
)

// listenForNames serves queries by UDP and TCP. They are the host's to answer, as they are.
func (o *outlet) listenForNames() error {
	at := tcpip.FullAddress{NIC: nic, Addr: addressOf(o.names), Port: namesPort}
	packets, err := gonet.DialUDP(o.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("listening for queries: %w", err)
	}
	streams, err := gonet.ListenTCP(o.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("listening for queries: %w", err)
	}
	go o.servePackets(packets)
	go o.serveStreams(streams)
	return nil
}

func (o *outlet) servePackets(packets *gonet.UDPConn) {
	room := make(chan struct{}, maxQueries)
	for {
		query := make([]byte, mtu)
		length, client, err := packets.ReadFrom(query)
		if err != nil {
			return // as the stack does
		}
		select {
		case room <- struct{}{}:
		default:
			continue
		}
		go func() {
			defer func() { <-room }()
			if answer := o.host.resolve(query[:length], false); len(answer) > 0 {
				_, _ = packets.WriteTo(answer, client)
			}
		}()
	}
}

func (o *outlet) serveStreams(streams net.Listener) {
	room := make(chan struct{}, maxStreams)
	for {
		client, err := streams.Accept()
		if err != nil {
			return
		}
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			defer client.Close()
			o.serveStream(client)
		}()
	}
}

// serveStream answers the queries of a connection, one after the other (RFC 1035, 4.2.2).
func (o *outlet) serveStream(client net.Conn) {
	for {
		_ = client.SetDeadline(time.Now().Add(patience))
		var length [2]byte
		if _, err := io.ReadFull(client, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(client, query); err != nil {
			return
		}
		answer := o.host.resolve(query, true)
		if len(answer) == 0 || len(answer) > 0xffff {
			return
		}
		if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
