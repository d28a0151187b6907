package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"
)

// nc sends its input to an address and prints what comes back, until nothing came for -w seconds or the other side
// has ended.
func nc(words []string) error {
	flags := pflag.NewFlagSet("nc", pflag.ContinueOnError)
	udp := flags.BoolP("udp", "u", false, "")
	wait := flags.Float64P("wait", "w", 0, "")
	from := flags.IntP("port", "p", 0, "")
	probe := flags.BoolP("zero", "z", false, "")
	verbose := flags.BoolP("verbose", "v", false, "")
	flags.BoolP("telnet", "t", false, "")
	flags.BoolP("numeric", "n", false, "")
	if err := flags.Parse(words); err != nil {
		return failure{1, err}
	}
	if flags.NArg() != 2 {
		return failure{1, errors.New("usage: nc [-ntuvz] [-p PORT] [-w SECONDS] HOST PORT")}
	}
	address := net.JoinHostPort(flags.Arg(0), flags.Arg(1))
	dialer, network := &net.Dialer{Timeout: seconds(*wait)}, "tcp"
	if *udp {
		network = "udp"
	}
	if *from != 0 && *udp {
		dialer.LocalAddr = &net.UDPAddr{Port: *from}
	} else if *from != 0 {
		dialer.LocalAddr = &net.TCPAddr{Port: *from}
	}
	connection, err := dialer.Dial(network, address)
	if err != nil {
		return failure{1, err}
	}
	defer connection.Close()
	if *verbose {
		fmt.Fprintf(os.Stderr, "Connection to %s %s port [%s] succeeded!\n", flags.Arg(0), flags.Arg(1), network)
	}
	if *probe {
		return nil
	}
	return talk(connection, seconds(*wait))
}

// talk ends a TCP connection's sending side with its input; the answer may still be on its way.
func talk(connection net.Conn, wait time.Duration) error {
	go func() {
		_, _ = io.Copy(connection, os.Stdin)
		if half, can := connection.(*net.TCPConn); can {
			_ = half.CloseWrite()
		}
	}()
	buffer := make([]byte, 1<<16)
	for {
		if wait > 0 {
			_ = connection.SetReadDeadline(time.Now().Add(wait))
		}
		count, err := connection.Read(buffer)
		if _, bad := os.Stdout.Write(buffer[:count]); bad != nil {
			return bad
		}
		var timeout net.Error
		switch {
		case err == io.EOF || errors.As(err, &timeout) && timeout.Timeout():
			return nil
		case err != nil:
			return failure{1, err}
		}
	}
}
