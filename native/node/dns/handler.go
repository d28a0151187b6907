package dns

import (
	"context"
	"math/rand/v2"
	"runtime/debug"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"k8s.io/klog/v2"
)

const (
	// maxQueries bounds those that are answered at once, maxStreams the TCP connections. The plugin answers from memory,
	// in microseconds: more than this are a flood, and what it is told is to come again.
	maxQueries = 256
	maxStreams = 128
)

// handler asks the plugin and answers for it where it says only a code.
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

// ask has the plugin answer. CoreDNS' own server recovers plugins from what a query makes them do; this is one, in the
// process that the whole cluster lives in.
func (h *handler) ask(to dns.ResponseWriter, query *dns.Msg) (code int) {
	if len(query.Question) != 1 {
		return dns.RcodeFormatError
	}
	logger := klog.FromContext(h.ctx).WithValues("name", query.Question[0].Name, "type", dns.TypeToString[query.Question[0].Qtype])
	defer func() {
		if why := recover(); why != nil {
			logger.Info("Not answered: the plugin panicked", "why", why, "stack", string(debug.Stack()))
			code = dns.RcodeServerFailure
		}
	}()
	code, err := h.names.ServeDNS(h.ctx, request.NewScrubWriter(query, shuffled{to}), query)
	if err != nil {
		logger.Error(err, "Not answered")
	}
	return code
}

// shuffled gives addresses in an order of chance, as CoreDNS' plugin loadbalance does: many programs take the first.
type shuffled struct{ dns.ResponseWriter }

func (s shuffled) WriteMsg(answer *dns.Msg) error {
	records := answer.Answer
	var at []int
	for i, each := range records {
		if kind := each.Header().Rrtype; kind == dns.TypeA || kind == dns.TypeAAAA {
			at = append(at, i)
		}
	}
	rand.Shuffle(len(at), func(i, j int) { records[at[i]], records[at[j]] = records[at[j]], records[at[i]] })
	return s.ResponseWriter.WriteMsg(answer)
}

// outside is what the plugin hands names to that are not of its zones. They do not exist: a resolver that is told so goes
// on in its search list. It stops at a refusal (musl's) or asks again and again.
type outside struct{}

func (outside) Name() string { return "outside" }

func (outside) ServeDNS(_ context.Context, to dns.ResponseWriter, query *dns.Msg) (int, error) {
	return dns.RcodeNameError, to.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeNameError))
}
