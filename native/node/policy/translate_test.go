package policy

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sandkube/node/cluster"
	"sandkube/node/iptables"
	"sandkube/node/services"
)

func places(texts ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, each := range texts {
		all = append(all, netip.MustParseAddrPort(each))
	}
	return all
}

// web is a Service of one pod, and has another of three pods beside it, one of which is on its client's node.
var web = []services.Translation{{
	Frontend: netip.MustParseAddrPort("10.96.0.7:80"), Choices: []services.Choice{{Endpoints: places("10.88.0.2:8080")}},
}}

var several = append(web[:1:1], services.Translation{
	Frontend: netip.MustParseAddrPort("10.96.0.8:80"),
	Choices: []services.Choice{
		{Clients: netip.MustParsePrefix("10.88.1.0/24"), Endpoints: places("10.88.1.4:8080")},
		{Clients: netip.MustParsePrefix("10.88.2.0/24")},
		{Endpoints: places("10.88.0.4:8080", "10.88.0.5:8080", "10.88.0.6:8080")},
	},
})

// to asks where the connection after so many others goes; nowhere else is the zero value.
func to(t *testing.T, table iptables.Table, from, place string, after int) netip.AddrPort {
	t.Helper()
	at := netip.MustParseAddrPort(place)
	verdict, sent := outcome(table, netip.MustParseAddr(from), at.Addr(), unix.IPPROTO_TCP, at.Port(), after)
	if verdict != iptables.Accept {
		t.Errorf("from %s to %s: %v", from, place, verdict)
	}
	return sent
}

func TestClientsAreSentInTurn(t *testing.T) {
	table := Compile(world()).table(cluster.Default, several)
	met := map[netip.AddrPort]int{}
	for after := range 9 {
		met[to(t, table, "10.88.0.9", "10.96.0.8:80", after)]++
	}
	for _, each := range places("10.88.0.4:8080", "10.88.0.5:8080", "10.88.0.6:8080") {
		if met[each] != 3 {
			t.Errorf("met %v", met)
		}
	}
}

// Who has endpoints of its own gets those; who has none, or would get itself, is left to the proxy, as is any other port.
func TestWhoIsSentWhere(t *testing.T) {
	table := Compile(world()).table(cluster.Default, several)
	for _, each := range []struct{ from, place, want string }{
		{"10.88.0.9", "10.96.0.7:80", "10.88.0.2:8080"},
		{"10.88.0.9", "10.96.0.7:81", ""},
		{"10.88.0.9", "10.88.0.2:80", ""},
		{"10.88.0.2", "10.96.0.7:80", ""},
		{"10.88.0.5", "10.96.0.8:80", ""},
		{"10.88.1.9", "10.96.0.8:80", "10.88.1.4:8080"},
		{"10.88.1.4", "10.96.0.8:80", ""},
		{"10.88.2.9", "10.96.0.8:80", ""},
	} {
		if got := to(t, table, each.from, each.place, 0); each.want == "" && got.IsValid() || each.want != "" && got.String() != each.want {
			t.Errorf("%v: %v", each, got)
		}
	}
}

// What policies are about is judged by the proxy, and all else translated.
func TestPoliciesComeBeforeTranslations(t *testing.T) {
	closed := Compile(world(policyOf(t, "a", `{podSelector: {matchLabels: {app: web}}}`))).table(cluster.Default, several)
	if got := to(t, closed, "10.88.0.9", "10.96.0.7:80", 0); got.IsValid() {
		t.Errorf("an isolated endpoint: %v", got)
	}
	if got := to(t, closed, "10.88.0.9", "10.96.0.8:80", 0); !got.IsValid() {
		t.Error("one that is not isolated is not translated to")
	}
	held := Compile(world(policyOf(t, "a", `{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}`))).table(cluster.Default, several)
	if got := to(t, held, "10.88.0.3", "10.96.0.8:80", 0); got.IsValid() {
		t.Errorf("an isolated client: %v", got)
	}
	if got := to(t, held, "10.88.0.9", "10.96.0.8:80", 0); !got.IsValid() {
		t.Error("a client that is not isolated is not translated for")
	}
}

// A packet that opens no connection is never sent elsewhere: the proxy may have it.
func TestOpeningPacketsOnly(t *testing.T) {
	table := Compile(world()).table(cluster.Default, web)
	first := table.Builtin[iptables.Prerouting].Rules[0]
	if *first.Flags != (iptables.Flags{Mask: iptables.SYN | iptables.ACK, Set: iptables.SYN}) || first.Jump != toServices {
		t.Errorf("the first rule is %v", first)
	}
}

func TestTranslationsOfTwoFamilies(t *testing.T) {
	dual := cluster.Default.With(cluster.DefaultSecond)
	both := append(web[:1:1], services.Translation{
		Frontend: netip.MustParseAddrPort("[fd00:10:96::7]:80"), Choices: []services.Choice{{Endpoints: places("[fd00:10:88::2]:8080")}},
	})
	tables := Compile(world()).tables(dual, both)
	for i, want := range []string{"10.88.0.2:8080", "[fd00:10:88::2]:8080"} {
		if found := tables[i].Chains[0].Rules; len(tables[i].Chains) != 2 || found[1].To.String() != want {
			t.Errorf("family %d: %v", i, tables[i].Chains)
		}
	}
}
