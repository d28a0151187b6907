// Package dns serves the names of the cluster: CoreDNS's plugins, as a Corefile names them, behind a plain DNS server, in the
// process that serves what pods send.
package dns

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"
)

// Run serves names on address, port 53, UDP and TCP, until ctx ends or one of the two cannot be served any more: by the Corefile
// of the cluster, or the node's own. ready is called once, when everything that the API held at the start can be asked for.
func Run(ctx context.Context, kubeconfig, corefile string, address netip.Addr, ready func()) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	names, err := newNames(config, corefile, address.String())
	if err != nil {
		return err
	}
	servers, err := listen(netip.AddrPortFrom(address, 53), newHandler(ctx, names))
	if err != nil {
		return err
	}
	return serve(ctx, servers, func() error {
		if err := names.begin(ctx); err != nil {
			return err
		}
		ready()
		return names.follow(ctx)
	})
}

// serve runs the servers and start. The first that fails or ends, or the end of ctx, ends all.
func serve(ctx context.Context, servers []*dns.Server, start func() error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		group.Go(func() error {
			err := server.ActivateAndServe()
			return cmp.Or(context.Cause(ctx), err, errors.New("a server of names ended by itself"))
		})
	}
	group.Go(func() error {
		done := make(chan error, 1)
		go func() { done <- start() }() // which nothing can break off
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	group.Go(func() error {
		<-ctx.Done()
		for _, server := range servers {
			_ = server.Shutdown()
			closeSockets(server) // which Shutdown does not where the server has not started
		}
		return context.Cause(ctx)
	})
	return group.Wait()
}

func closeSockets(server *dns.Server) {
	if server.PacketConn != nil {
		_ = server.PacketConn.Close()
	}
	if server.Listener != nil {
		_ = server.Listener.Close()
	}
}

func listen(address netip.AddrPort, handler dns.Handler) ([]*dns.Server, error) {
	packets, err := net.ListenPacket("udp4", address.String())
	if err != nil {
		return nil, err
	}
	streams, err := net.Listen("tcp4", address.String())
	if err != nil {
		return nil, errors.Join(err, packets.Close())
	}
	streams = netutil.LimitListener(streams, maxStreams)
	return []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}}, nil
}
