package dns

import (
	"context"
	"runtime/debug"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
	"k8s.io/klog/v2"
)

const (
	// maxQueries bounds those that are answered at once, maxStreams the TCP connections. Names of the cluster are answered from
	// memory, in microseconds: more than this are a flood, and what it is told is to come again.
	maxQueries = 256
	maxStreams = 128
)

// handler asks plugins and answers for them where they say only a code.
type handler struct {
	ctx   context.Context
	names plugin.Handler
	room  chan struct{}
}

func newHandler(ctx context.Context, names plugin.Handler) *handler {
	return &handler{ctx: ctx, names: names, room: make(chan struct{}, maxQueries)}
}

func (h *handler) ServeDNS(to dns.ResponseWriter, query *dns.Msg) {
	code := dns.RcodeServerFailure
	select {
	case h.room <- struct{}{}:
		code = h.ask(to, query)
		<-h.room
	default:
		klog.FromContext(h.ctx).V(2).Info("Not answered: too many queries at once", "client", to.RemoteAddr())
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

// ask has the plugins answer. CoreDNS' own server recovers them from what a query makes them do, but not where a Corefile says
// debug; this is one, in the process that all names and Services live in.
func (h *handler) ask(to dns.ResponseWriter, query *dns.Msg) (code int) {
	if len(query.Question) != 1 {
		return dns.RcodeFormatError
	}
	logger := klog.FromContext(h.ctx).WithValues("name", query.Question[0].Name, "type", dns.TypeToString[query.Question[0].Qtype])
	defer func() {
		if why := recover(); why != nil {
			logger.Info("Not answered: a plugin panicked", "why", why, "stack", string(debug.Stack()))
			code = dns.RcodeServerFailure
		}
	}()
	code, err := h.names.ServeDNS(h.ctx, to, query)
	if err != nil {
		logger.Error(err, "Not answered")
	}
	return code
}
