package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// said is what a tool prints, given an input.
func said(t *testing.T, tool func([]string) error, input string, words ...string) (string, error) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.WriteString(input); err != nil {
		t.Fatal(err)
	}
	to.Close()
	in, out := os.Stdin, os.Stdout
	os.Stdin, os.Stdout = from, writer
	failed := tool(words)
	os.Stdin, os.Stdout = in, out
	writer.Close()
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), failed
}

func status(err error) int {
	if known, is := err.(failure); is {
		return known.status
	}
	return -1
}

func server(t *testing.T) string {
	t.Helper()
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("X-Asked"))
	}
	one := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(one.Close)
	return strings.TrimPrefix(one.URL, "http://")
}

func TestCurl(t *testing.T) {
	address := server(t)
	file := filepath.Join(t.TempDir(), "body")
	for _, each := range []struct {
		words, wanted string
	}{
		{"-g -q -s --connect-timeout 2 --max-time 10 http://" + address + "/", "GET "},
		{"-XPUT -sk -H X-Asked:7 " + address, "PUT 7"},
		{"-s --interface 127.0.0.1 " + address, "GET "},
		{"-o /dev/null -q -s -w %{http_code} " + address + "/missing", "404"},
		{"-s -o " + file + " " + address, ""},
	} {
		text, err := said(t, curl, "", strings.Fields(each.words)...)
		if err != nil || text != each.wanted {
			t.Errorf("curl %s: %q, %v", each.words, text, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "GET " {
		t.Errorf("-o: %q, %v", data, err)
	}
	if text, err := said(t, curl, "", "-i", address); err != nil || !strings.HasPrefix(text, "HTTP/1.1 200 OK\r\n") {
		t.Errorf("-i: %q, %v", text, err)
	}
}

func TestCurlFails(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for words, wanted := range map[string]int{
		"-q -s --connect-timeout 2 " + closed.Addr().String(): noConnect,
		"-s --max-time 0.2 " + silent.Addr().String():         timedOut,
		"-f " + server(t) + "/missing":                        notOK,
		"-s no-such-name.invalid":                             noHost,
		"--no-such-option x":                                  badUsage,
		"":                                                    badUsage,
	} {
		if _, err := said(t, curl, "", strings.Fields(words)...); status(err) != wanted {
			t.Errorf("curl %s: %v, not status %d", words, err, wanted)
		}
	}
}

func echo(t *testing.T, network string) []string {
	t.Helper()
	if network == "udp" {
		one, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { one.Close() })
		go func() {
			buffer := make([]byte, 100)
			for {
				count, from, err := one.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = one.WriteTo(buffer[:count], from)
			}
		}()
		host, port, _ := net.SplitHostPort(one.LocalAddr().String())
		return []string{host, port}
	}
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	go func() {
		for {
			connection, err := one.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(connection, connection); connection.Close() }()
		}
	}()
	host, port, _ := net.SplitHostPort(one.Addr().String())
	return []string{host, port}
}

func TestNetcat(t *testing.T) {
	tcp, udp := echo(t, "tcp"), echo(t, "udp")
	for _, words := range [][]string{
		append([]string{"-v", "-t", "-w", "2"}, tcp...),
		append([]string{"-w", "2"}, tcp...),
		append([]string{"-w", "1", "-u"}, udp...),
	} {
		if text, err := said(t, nc, "hostName\n", words...); err != nil || text != "hostName\n" {
			t.Errorf("nc %v: %q, %v", words, text, err)
		}
	}
	if _, err := said(t, nc, "", "-z", "-w", "1", "127.0.0.1", "1"); err == nil {
		t.Error("nc -z of a closed port went well")
	}
}

func TestDig(t *testing.T) {
	one, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	zone := dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		answer := new(dns.Msg).SetReply(asked)
		if asked.Question[0].Name == "a.example." {
			record, _ := dns.NewRR("a.example. 5 IN A 10.0.0.7")
			answer.Answer = append(answer.Answer, record)
		}
		_ = w.WriteMsg(answer)
	})
	running := &dns.Server{PacketConn: one, Handler: zone}
	go func() { _ = running.ActivateAndServe() }()
	defer func() { _ = running.Shutdown() }()
	for name, wanted := range map[string]int{"a.example.": 1, "b.example.": 0} {
		answer, err := question{name: name, kind: dns.TypeA}.ask(name, one.LocalAddr().String())
		if err != nil || len(answer.Answer) != wanted {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
	found, err := parse(strings.Fields("+tcp +noall +answer +search _http._tcp.x.svc SRV"))
	if err != nil || !found.tcp || !found.search || found.short || found.kind != dns.TypeSRV || found.name != "_http._tcp.x.svc" {
		t.Errorf("%+v, %v", found, err)
	}
	for _, words := range []string{"", "+nosuch a", "-x a"} {
		if _, err := parse(strings.Fields(words)); err == nil {
			t.Errorf("dig %s went well", words)
		}
	}
	text, _ := said(t, func([]string) error {
		record, _ := dns.NewRR("a.example. 5 IN A 10.0.0.7")
		question{short: true}.print(&dns.Msg{Answer: []dns.RR{record}})
		return nil
	}, "")
	if text != "10.0.0.7\n" {
		t.Errorf("+short: %q", text)
	}
}

func TestGetent(t *testing.T) {
	if text, err := said(t, getent, "", "hosts", "127.0.0.1"); err != nil || text != "127.0.0.1       127.0.0.1\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := said(t, getent, "", "passwd", "root"); status(err) != 1 {
		t.Error(err)
	}
	if _, err := said(t, getent, "", "hosts", "no-such-name.invalid"); status(err) != 2 {
		t.Error(err)
	}
}
