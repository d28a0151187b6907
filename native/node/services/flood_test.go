package services

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// inUse is what the Go program holds of memory: heap and stacks, in bytes.
func inUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse + stats.StackInuse
}

// TestUDPFlood: 10,000 clients of 12 bytes each, whose endpoint answers all of them, cost the table's bound and no more, and
// another Service's flow lives on. (With a buffer on each flow's stack it was 128 KB a flow, 1.2 GB.)
func TestUDPFlood(t *testing.T) {
	var all *flows
	f := start(t, func(p *proxy) {
		p.table.flows = newFlows(maxFlows, time.Minute)
		all = p.table.flows
	})
	serveUDP(t, "127.1.0.1", "one")
	f.createService(testService(serviceAddress, udpService))
	f.createSlice(testSlice(v1.ProtocolUDP, 8080, endpoint("127.1.0.1")))
	quiet := named("default", "quiet", testService("127.96.0.8", udpService))
	f.createService(quiet)
	slice := testSlice(v1.ProtocolUDP, 8080, endpoint("127.1.0.1"))
	slice.Name, slice.Labels = "quiet-1", map[string]string{discovery.LabelServiceName: "quiet"}
	f.createSlice(slice)
	patient, err := net.Dial("udp4", "127.96.0.8:80")
	if err != nil {
		t.Fatal(err)
	}
	defer patient.Close()
	askUDP(t, patient, "before")
	first := flowOf(all, patient.LocalAddr())

	before := inUse()
	for i := range 10_000 {
		conn, err := net.Dial("udp4", serviceAddress+":80")
		if err != nil {
			t.Fatal(err)
		}
		if i%500 == 0 {
			askUDP(t, conn, "hello, world")
		} else if _, err := conn.Write([]byte("hello, world")); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	grown := int64(inUse()) - int64(before)
	all.mu.Lock()
	count := all.count
	all.mu.Unlock()
	t.Logf("%d flows, %d KB", count, grown>>10)
	if count > maxFlows {
		t.Errorf("%d flows", count)
	}
	if count < maxFlows/2 {
		t.Errorf("only %d flows: most packets were lost", count)
	}
	if grown > 64<<20 {
		t.Errorf("10,000 flows cost %d MB", grown>>20)
	}
	if got := askUDP(t, patient, "after"); got != "one:after" {
		t.Errorf("got %q", got)
	}
	if now := flowOf(all, patient.LocalAddr()); first == nil || now != first {
		t.Error("a flood at one Service ended another's flow")
	}
}

func flowOf(all *flows, client net.Addr) *flow {
	all.mu.Lock()
	defer all.mu.Unlock()
	for each := range all.frontends {
		if f := each.byClient[client.(*net.UDPAddr).AddrPort()]; f != nil {
			return f
		}
	}
	return nil
}

func TestLeastRecentlyUsedFlowMakesWay(t *testing.T) {
	all := newFlows(3, time.Hour)
	busy, idle := all.register(), all.register()
	make := func(of *frontendFlows, port uint16) *flow {
		conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
		if err != nil {
			t.Fatal(err)
		}
		f := &flow{conn: conn, client: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), of: of}
		all.add(f)
		return f
	}
	alone, first, second := make(idle, 1), make(busy, 2), make(busy, 3)
	all.touch(first)
	third := make(busy, 4)
	for f, lives := range map[*flow]bool{alone: true, first: true, second: false, third: true} {
		if (f.place != nil) != lives {
			t.Errorf("the flow of client %s lives: %v", f.client, f.place != nil)
		}
	}
	all.endUnless(busy, func(f *flow) bool { return f == third })
	if all.find(busy, first.client) != nil || all.find(busy, third.client) != third || all.count != 2 {
		t.Errorf("%d flows", all.count)
	}
	all.unregister(busy)
	all.unregister(idle)
	all.close()
	if all.count != 0 {
		t.Errorf("%d flows", all.count)
	}
}

// cpu is what this process used so far.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestErrorThatStays: a socket that fails at every read costs next to nothing, and serves again when it does not.
func TestErrorThatStays(t *testing.T) {
	var served *table
	f := start(t, func(p *proxy) { served = p.table })
	serveUDP(t, "127.1.0.1", "one")
	f.createService(testService(serviceAddress, udpService))
	f.createSlice(testSlice(v1.ProtocolUDP, 8080, endpoint("127.1.0.1")))
	conn, err := net.Dial("udp4", serviceAddress+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	askUDP(t, conn, "a")
	l := served.listeners[frontend{v1.ProtocolUDP, netip.MustParseAddrPort(serviceAddress + ":80")}].(*udpListener)
	if err := l.conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	before := cpu(t)
	time.Sleep(500 * time.Millisecond) // the time in which a loop would show
	if used := cpu(t) - before; used > 250*time.Millisecond {
		t.Errorf("an error that stays takes %s of 500 ms", used)
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := askUDP(t, conn, "b"); got != "one:b" {
		t.Errorf("got %q", got)
	}
}

// An answer of an endpoint that the Service has no more does not pass.
func TestRemovedEndpointAnswersNoMore(t *testing.T) {
	var all *flows
	f := start(t, func(p *proxy) { all = p.table.flows })
	conn, slice := firstOfTwo(t, f)
	askUDP(t, conn, "a")
	all.mu.Lock()
	all.idle = time.Hour
	all.mu.Unlock()
	slice = slice.DeepCopy()
	slice.Endpoints = []discovery.Endpoint{endpoint("127.1.0.2")}
	f.updateSlice(slice)
	eventually(t, "the flow has ended", func() bool { return flowOf(all, conn.LocalAddr()) == nil })
}

// counted counts how often all Services are looked at.
type counted struct {
	corelisters.ServiceLister
	looks int
}

func (c *counted) List(selector labels.Selector) ([]*v1.Service, error) {
	c.looks++
	return c.ServiceLister.List(selector)
}

// TestChangesAreTakenTogether: a change is acted upon at once, a hundred that follow within 200 ms are a few.
func TestChangesAreTakenTogether(t *testing.T) {
	f := start(t)
	f.stop()
	services := &counted{ServiceLister: corelisters.NewServiceLister(cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil))}
	p := &proxy{
		table:          newTable(noAddresses{}, everybody),
		translate:      func([]Translation) {},
		hostPortFolder: f.folder,
		services:       services,
		endpoints:      discoverylisters.NewEndpointSliceLister(cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil)),
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	ctx, cancel := context.WithCancel(t.Context())
	changed, done := make(chan struct{}), make(chan struct{})
	go func() {
		p.serve(ctx, changed, watcher)
		close(done)
	}()
	began := time.Now()
	changed <- struct{}{}
	changes := 1
	for time.Since(began) < 200*time.Millisecond {
		select {
		case changed <- struct{}{}: // taken when the one before it was acted upon
			changes++
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done
	if services.looks < 3 || services.looks > 6 {
		t.Errorf("%d changes in 200 ms are %d looks", changes, services.looks)
	}
}

func TestTooManyConnections(t *testing.T) {
	room := newPlaces(3, 2)
	f := start(t, func(p *proxy) { p.table.places = room })
	serveTCP(t, "127.1.0.1", func(conn *net.TCPConn) { _, _ = conn.Read(make([]byte, 1)) })
	f.createService(testService(serviceAddress))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint("127.1.0.1")))
	open := func(from string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		return dialer.Dial("tcp4", serviceAddress+":80")
	}
	var held []net.Conn
	defer func() {
		for _, each := range held {
			each.Close()
		}
	}()
	hold := func(from string) {
		t.Helper()
		eventually(t, "connected", func() bool {
			conn, err := open(from)
			if err == nil {
				held = append(held, conn)
			}
			return err == nil
		})
		eventually(t, "taken", func() bool {
			room.mu.Lock()
			defer room.mu.Unlock()
			return room.taken == len(held)
		})
	}
	hold("127.5.0.1")
	hold("127.5.0.1")
	for _, from := range []string{"127.5.0.1", "127.5.0.2"} {
		if from == "127.5.0.2" {
			hold(from) // others have room while one client has its share
		}
		conn, err := open(from)
		if err != nil {
			continue // the reset was faster
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("one connection too many from %s: %v", from, err)
		}
		conn.Close()
	}
	held[0].Close()
	eventually(t, "a place is free again", func() bool {
		conn, err := open("127.5.0.2")
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		timeout, ok := err.(net.Error)
		return ok && timeout.Timeout()
	})
}
