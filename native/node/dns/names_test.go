package dns

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clients "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
)

const own = "10.96.0.10"

var nowhere = &rest.Config{Host: "https://127.0.0.1:1"}

// answers keeps what is written.
type answers struct {
	dns.ResponseWriter
	written *dns.Msg
}

func (*answers) LocalAddr() net.Addr  { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }
func (*answers) RemoteAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5353} }
func (a *answers) WriteMsg(one *dns.Msg) error {
	a.written = one
	return nil
}

// asked is what a name is answered with: its code, or addresses.
func asked(t *testing.T, handler dns.Handler, name string) string {
	t.Helper()
	to := &answers{}
	handler.ServeDNS(to, new(dns.Msg).SetQuestion(name, dns.TypeA))
	if to.written == nil {
		t.Fatalf("%s: no answer", name)
	}
	words := []string{dns.RcodeToString[to.written.Rcode]}
	for _, each := range to.written.Answer {
		if one, ok := each.(*dns.A); ok {
			words = append(words, one.A.String())
		}
	}
	return strings.Join(words, " ")
}

func hosts(address string) string {
	return ". {\n hosts {\n  " + address + " one.example\n  fallthrough\n }\n nxdomain\n}\n"
}

func TestTheNodesOwnCorefile(t *testing.T) {
	made, err := read(Corefile("a.test", netip.Addr{}, false), nowhere, own)
	if err != nil {
		t.Fatal(err)
	}
	handler := newHandler(t.Context(), made)
	for name, want := range map[string]string{
		"example.org.":               "NXDOMAIN",
		"x.y.svc.a.test.":            "SERVFAIL", // it has not begun
		"1.0.0.10.in-addr.arpa.":     "SERVFAIL",
		"1.0.0.10.in-addr.arpa.org.": "NXDOMAIN",
	} {
		if got := asked(t, handler, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestTheCorefileOfTwoFamilies(t *testing.T) {
	made, err := read(Corefile("a.test", netip.Addr{}, true), nowhere, own)
	if err != nil {
		t.Fatal(err)
	}
	handler := newHandler(t.Context(), made)
	for _, name := range []string{"1.0.0.10.in-addr.arpa.", "1." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa."} {
		if got := asked(t, handler, name); got != "SERVFAIL" { // it has not begun
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A Corefile as clusters made by others have it, but for where it forwards to.
func TestACorefileOfOthers(t *testing.T) {
	text := `.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . 192.0.2.1 {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
`
	if _, err := read(text, nowhere, own); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		strings.Replace(text, "192.0.2.1", "/etc/resolv.conf", 1): "Corefile:13: /etc/resolv.conf is this server itself: forward to another one",
		strings.Replace(text, "192.0.2.1", own, 1):                "Corefile:13: 10.96.0.10 is this server itself: forward to another one",
		"":                      "Corefile: it serves nothing",
		". {\n nosuch\n}":       "Unknown directive 'nosuch'",
		". {\n route53\n}":      "no action found for directive 'route53'",
		".:5353 {\n errors\n}":  "Corefile: it serves dns://:5353, and here is nothing but port 53 of 10.96.0.10",
		"tls://. {\n errors\n}": "Corefile: it serves tls://:853, and here is nothing but port 53 of 10.96.0.10",
	} {
		if _, err := read(text, nowhere, own); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOrderIsOfChance(t *testing.T) {
	made, err := read(". {\n hosts {\n  10.0.0.1 a\n  10.0.0.2 a\n  10.0.0.3 a\n }\n loadbalance\n}", nowhere, own)
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]bool{}
	for range 60 {
		first[strings.Fields(asked(t, newHandler(t.Context(), made), "a."))[1]] = true
	}
	if len(first) != 3 {
		t.Errorf("first were %v", first)
	}
}

func corefile(text string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: map[string]string{key: text}}
}

// following is names that follow a ConfigMap, which it may already have.
func following(t *testing.T, begin *v1.ConfigMap) (*clients.Clientset, dns.Handler) {
	t.Helper()
	client := clients.NewClientset(begin)
	one := &names{client: client, config: nowhere, base: Corefile("a.test", netip.Addr{}, false), own: own}
	if err := one.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	go one.follow(t.Context())
	return client, newHandler(t.Context(), one)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// event says whether there is one with a reason and words.
func event(t *testing.T, client *clients.Clientset, reason, words string) bool {
	t.Helper()
	all, err := client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range all.Items {
		if each.Reason == reason && strings.Contains(each.Message, words) {
			return true
		}
	}
	return false
}

func TestChanges(t *testing.T) {
	client, handler := following(t, corefile(hosts("10.0.0.1")))
	if got := asked(t, handler, "one.example."); got != "NOERROR 10.0.0.1" {
		t.Errorf("at first: %s", got)
	}
	change := func(text string) {
		t.Helper()
		if _, err := client.CoreV1().ConfigMaps(namespace).Update(t.Context(), corefile(text), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "nobody watches", func() bool {
		for _, each := range client.Actions() {
			if each.Matches("watch", "configmaps") {
				return true
			}
		}
		return false
	})
	change(hosts("10.0.0.2"))
	eventually(t, "the change is not served", func() bool { return asked(t, handler, "one.example.") == "NOERROR 10.0.0.2" })
	change(". {\n nosuch\n}")
	eventually(t, "no event of a bad one", func() bool { return event(t, client, "CorefileRefused", "Unknown directive 'nosuch'") })
	if got := asked(t, handler, "one.example."); got != "NOERROR 10.0.0.2" {
		t.Errorf("after a bad one: %s", got)
	}
	change(". {\n kubernetes a.test {\n  startup_timeout 24h\n }\n}") // whose API does not answer
	change(hosts("10.0.0.3"))
	eventually(t, "one that takes its time is in the way", func() bool { return asked(t, handler, "one.example.") == "NOERROR 10.0.0.3" })
}

// TestPublish: who starts with a way out has its Corefile, and what a user made of one stays.
func TestPublish(t *testing.T) {
	outside, inside := Corefile("a.test", netip.MustParseAddr("169.254.88.2"), false), Corefile("a.test", netip.Addr{}, false)
	if !strings.Contains(outside, "forward . 169.254.88.2\n") || strings.Contains(outside, "nxdomain") {
		t.Error(outside)
	}
	if _, err := read(outside, nowhere, own); err != nil {
		t.Error(err)
	}
	maps := clients.NewClientset().CoreV1().ConfigMaps(namespace)
	for _, each := range []struct{ own, other, want string }{
		{inside, outside, inside}, {outside, inside, outside}, {inside, outside, inside}, {"users", inside, "users"}, {inside, outside, "users"},
	} {
		if err := publish(t.Context(), maps, each.own, each.other); err != nil {
			t.Fatal(err)
		}
		if found, err := maps.Get(t.Context(), name, metav1.GetOptions{}); err != nil || found.Data[key] != each.want {
			t.Errorf("%v: %v", err, found.Data)
		}
	}
}
