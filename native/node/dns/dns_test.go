package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fake answers a query by its name: it panics, waits for release, or says something.
type fake struct {
	release chan struct{}
	waiting chan struct{}
}

func (fake) Name() string { return "fake" }

func (f fake) ServeDNS(ctx context.Context, to dns.ResponseWriter, query *dns.Msg) (int, error) {
	switch query.Question[0].Name {
	case "panic.":
		var missing *dns.Msg
		return missing.Rcode, nil
	case "wait.":
		f.waiting <- struct{}{}
		<-f.release
	case "some.":
		return dns.RcodeSuccess, to.WriteMsg(new(dns.Msg).SetReply(query))
	case "failing.":
		return dns.RcodeServerFailure, errors.New("planted")
	}
	return dns.RcodeNameError, to.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeNameError))
}

type served struct {
	t       *testing.T
	servers []*dns.Server
	fake    fake
	ended   chan error
	stop    func()
}

func start(t *testing.T) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	made := fake{release: make(chan struct{}), waiting: make(chan struct{}, 2*maxQueries)}
	servers, err := listen(netip.MustParseAddrPort("127.0.0.1:0"), newHandler(ctx, made))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, servers: servers, fake: made, ended: make(chan error, 1)}
	var started sync.WaitGroup
	for _, each := range servers {
		started.Add(1)
		each.NotifyStartedFunc = started.Done
	}
	go func() { s.ended <- serve(ctx, servers, func() error { return nil }) }()
	started.Wait()
	s.stop = cancel
	t.Cleanup(cancel)
	return s
}

func (s *served) ask(network, name string) *dns.Msg {
	s.t.Helper()
	address := s.servers[0].PacketConn.LocalAddr().String()
	if network == "tcp" {
		address = s.servers[1].Listener.Addr().String()
	}
	client := dns.Client{Net: network, Timeout: 10 * time.Second}
	answer, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), address)
	if err != nil {
		s.t.Fatalf("%s by %s: %v", name, network, err)
	}
	return answer
}

func TestCodes(t *testing.T) {
	s := start(t)
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]int{
			"example.org.": dns.RcodeNameError,
			"failing.":     dns.RcodeServerFailure,
			"panic.":       dns.RcodeServerFailure,
			"some.":        dns.RcodeSuccess, // after the panic: it goes on
		} {
			if got := s.ask(network, name).Rcode; got != want {
				t.Errorf("%s by %s: %s, want %s", name, network, dns.RcodeToString[got], dns.RcodeToString[want])
			}
		}
	}
}

// More queries than there is room for are told to come again, and those that wait are answered in the end.
func TestBoundOnQueries(t *testing.T) {
	s := start(t)
	answers := make(chan int, maxQueries)
	for range maxQueries {
		go func() { answers <- s.ask("udp", "wait.").Rcode }()
	}
	for range maxQueries {
		<-s.fake.waiting
	}
	if got := s.ask("udp", "some.").Rcode; got != dns.RcodeServerFailure {
		t.Errorf("one too many: %s", dns.RcodeToString[got])
	}
	close(s.fake.release)
	for range maxQueries {
		if got := <-answers; got != dns.RcodeNameError {
			t.Errorf("one that waited: %s", dns.RcodeToString[got])
		}
	}
	if got := s.ask("udp", "example.org.").Rcode; got != dns.RcodeNameError {
		t.Errorf("after the flood: %s", dns.RcodeToString[got])
	}
}

func (s *served) end() error {
	s.t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(10 * time.Second):
		s.t.Fatal("it goes on")
		return nil
	}
}

// TestHalfAServer: the end of one of the two is the end of both, with its reason.
func TestHalfAServer(t *testing.T) {
	for _, half := range []string{"udp", "tcp"} {
		t.Run(half, func(t *testing.T) {
			s := start(t)
			s.ask("udp", "some.")
			if half == "udp" {
				s.servers[0].PacketConn.Close()
			} else {
				s.servers[1].Listener.Close()
			}
			if err := s.end(); err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestEnd(t *testing.T) {
	s := start(t)
	s.ask("udp", "some.")
	s.stop()
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestStartThatFails(t *testing.T) {
	servers, err := listen(netip.MustParseAddrPort("127.0.0.1:0"), newHandler(t.Context(), fake{}))
	if err != nil {
		t.Fatal(err)
	}
	err = serve(t.Context(), servers, func() error { return errors.New("planted") })
	if err == nil || !strings.Contains(err.Error(), "planted") {
		t.Errorf("ended with %v", err)
	}
}
