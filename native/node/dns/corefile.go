package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/miekg/dns"
	"k8s.io/client-go/rest"

	// What a Corefile may name beside the plugin kubernetes. Not among them is what has files, other listeners, or a cloud.
	_ "github.com/coredns/coredns/plugin/any"
	_ "github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/cancel"
	_ "github.com/coredns/coredns/plugin/dns64"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/local"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/minimal"
	_ "github.com/coredns/coredns/plugin/nsid"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/whoami"
)

// idle are plugins that a Corefile for a pod has, and that are of no use here: the node itself sees whether names are served, and
// reads a Corefile anew when it changes.
var idle = []string{"health", "loop", "prometheus", "ready", "reload"}

// last is the plugin nxdomain of ours: what no plugin before it answers does not exist. (CoreDNS's template comes before those that
// users add, hosts and forward.) A resolver that is told so goes on in its search list; it stops at a refusal (musl's) or asks
// again and again.
type last struct{}

func (last) Name() string { return "nxdomain" }

func (last) ServeDNS(_ context.Context, to dns.ResponseWriter, query *dns.Msg) (int, error) {
	return dns.RcodeNameError, to.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeNameError))
}

func init() {
	for _, name := range idle {
		plugin.Register(name, func(*caddy.Controller) error { return nil })
	}
	dnsserver.Directives = append(dnsserver.Directives, last{}.Name())
	plugin.Register(last{}.Name(), func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return last{} })
		return nil
	})
}

// port is the only one that is served.
const port = ":53"

// Corefile is what is served where nobody says otherwise. A name that is not of the cluster is asked for outside, or does not
// exist where nothing leads there. Without its time-out the plugin kubernetes gives up after five seconds, and says so in its log
// only. Names of addresses of IPv6 are the cluster's where it is of dual stack.
func Corefile(domain string, outside netip.Addr, dual bool) string {
	reverse := "in-addr.arpa"
	if dual {
		reverse += " ip6.arpa"
	}
	beyond := "nxdomain"
	if outside.IsValid() {
		beyond = "cache 30\n    forward . " + outside.String()
	}
	return domain + " " + reverse + ` {
    errors
    kubernetes {
        pods insecure
        ttl 5
        startup_timeout 24h
    }
    loadbalance
}
. {
    errors
    ` + beyond + `
}
`
}

// chain is what a Corefile makes: plugins that answer queries.
type chain struct {
	instance *caddy.Instance
	server   *dnsserver.Server
}

// read makes the chain of a Corefile; where the plugin kubernetes is told no API, it is that of config. own is the server's
// address.
func read(text string, config *rest.Config, own string) (*chain, error) {
	if err := check(text, own); err != nil {
		return nil, err
	}
	kubernetes.InCluster = func() (*rest.Config, error) { return rest.CopyConfig(config), nil }
	instance, servers, err := caddy.Load(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"})
	if err != nil {
		return nil, err
	}
	made := &chain{instance: instance}
	for _, each := range servers {
		server, plain := each.(*dnsserver.Server)
		if !plain || server.Address() != "dns://"+port {
			err = fmt.Errorf("Corefile: it serves %s, and here is nothing but port 53 of %s", addressOf(each), own)
		}
		made.server = server
	}
	if made.server == nil && err == nil {
		err = errors.New("Corefile: it serves nothing")
	}
	if err != nil {
		made.stop()
		return nil, err
	}
	return made, nil
}

func addressOf(server caddy.Server) string {
	if one, ok := server.(caddy.GracefulServer); ok {
		return one.Address()
	}
	return "another kind of server"
}

// check finds what would send each query back to this server.
func check(text, own string) error {
	blocks, err := caddyfile.Parse("Corefile", strings.NewReader(text), dnsserver.Directives)
	if err == nil && len(blocks) == 0 {
		err = errors.New("Corefile: it serves nothing")
	}
	if err != nil {
		return err
	}
	for _, block := range blocks {
		for _, token := range block.Tokens["forward"] {
			if slices.Contains([]string{"/etc/resolv.conf", own, own + port, "dns://" + own}, token.Text) {
				return fmt.Errorf("%s:%d: %s is this server itself: forward to another one", key, token.Line, token.Text)
			}
		}
	}
	return nil
}

// start has the plugins begin; those that know what the API holds have read it then.
func (c *chain) start() error {
	for _, each := range slices.Concat(c.instance.OnFirstStartup, c.instance.OnStartup) {
		if err := each(); err != nil {
			c.stop()
			return err
		}
	}
	return nil
}

func (c *chain) stop() {
	for _, each := range slices.Concat(c.instance.OnShutdown, c.instance.OnFinalShutdown) {
		_ = each() // which is of what ends anyway
	}
}

// Name is for plugin.Handler.
func (c *chain) Name() string { return "Corefile" }

// ServeDNS has the plugins answer, and answers for them where they say only a code.
func (c *chain) ServeDNS(ctx context.Context, to dns.ResponseWriter, query *dns.Msg) (int, error) {
	ctx = context.WithValue(ctx, dnsserver.Key{}, c.server)
	c.server.ServeDNS(context.WithValue(ctx, dnsserver.LoopKey{}, 0), to, query)
	return dns.RcodeSuccess, nil
}
