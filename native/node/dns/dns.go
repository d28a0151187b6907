// Package dns serves the names of the cluster: CoreDNS's kubernetes plugin
// behind a plain DNS server, in the process of the node.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

// Run serves domain and the reverse zones on address, port 53, UDP and TCP, until ctx ends. Names
// outside of them are refused: a sandbox has no way out. ready is called once, when everything that the
// API held at the start can be asked for.
func Run(ctx context.Context, kubeconfig, domain string, address netip.Addr, ready func()) error {
	names, start, err := plug(ctx, kubeconfig, domain)
	if err != nil {
		return err
	}
	servers, err := listen(netip.AddrPortFrom(address, 53), &handler{ctx: ctx, names: names})
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, server := range servers {
		group.Go(server.ActivateAndServe)
	}
	group.Go(func() error {
		if err := start(); err != nil {
			return err
		}
		ready()
		<-ctx.Done()
		var all []error
		for _, server := range servers {
			all = append(all, server.Shutdown())
		}
		return errors.Join(append(all, ctx.Err())...)
	})
	return group.Wait()
}

// plug sets up the plugin; start returns when its caches are filled.
func plug(ctx context.Context, kubeconfig, domain string) (plugin.Handler, func() error, error) {
	text := fmt.Sprintf("kubernetes %s in-addr.arpa {\n kubeconfig %s\n pods insecure\n ttl 5\n}", domain, kubeconfig)
	words := &caddy.Controller{Dispenser: caddyfile.NewDispenser("Corefile", strings.NewReader(text))}
	words.Next() // to the first word, the plugin's name
	names, err := kubernetes.ParseStanza(words)
	if err != nil {
		return nil, nil, err
	}
	names.Next = refuse{}
	start, _, err := names.InitKubeCache(ctx)
	return names, start, err
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
	return []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}}, nil
}

// handler asks the plugin and answers for it where it says only a code.
type handler struct {
	ctx   context.Context
	names plugin.Handler
}

func (h *handler) ServeDNS(to dns.ResponseWriter, query *dns.Msg) {
	code := dns.RcodeFormatError
	if len(query.Question) == 1 {
		var err error
		code, err = h.names.ServeDNS(h.ctx, request.NewScrubWriter(query, to), query)
		if err != nil {
			klog.FromContext(h.ctx).Error(err, "Not answered", "name", query.Question[0].Name)
		}
	}
	if plugin.ClientWrite(code) {
		return
	}
	answer := new(dns.Msg)
	answer.SetRcode(query, code)
	if err := to.WriteMsg(answer); err != nil {
		klog.FromContext(h.ctx).Error(err, "Not answered")
	}
}

// refuse is what the plugin hands names to that are not of its zones.
type refuse struct{}

func (refuse) Name() string { return "refuse" }

func (refuse) ServeDNS(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
	return dns.RcodeRefused, nil
}
