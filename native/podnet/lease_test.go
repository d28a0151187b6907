package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

var (
	testSubnet  = netip.MustParsePrefix("10.88.0.0/24")
	testGateway = netip.MustParseAddr("10.88.0.1")
	testConfig  = &config{Subnet: testSubnet, Gateway: testGateway}
	dualConfig  = &config{Subnet: testSubnet, Gateway: testGateway, Second: &family{
		Subnet: netip.MustParsePrefix("fd00:10:88::/64"), Gateway: netip.MustParseAddr("fd00:10:88::1"),
	}}
)

func TestWhoseLeaseItIs(t *testing.T) {
	got, err := parsePod("IgnoreUnknown=1;K8S_POD_NAMESPACE=space;K8S_POD_NAME=name;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=uid")
	if want := (pod{"space", "name", "uid"}); err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := parsePod(""); err != nil || got != (pod{}) {
		t.Errorf("of nobody: %v, %v", got, err)
	}
	if _, err := parsePod("K8S_POD_NAME"); err == nil {
		t.Error("what is no pair was taken")
	}
}

func allocate(t *testing.T, root, container string) string {
	t.Helper()
	l, err := openLeases(root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address, err := l.Allocate(testConfig, lease{attachment: attachment{container, "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	return address.String()
}

func release(t *testing.T, root, container string) {
	t.Helper()
	l, err := openLeases(root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Release(attachment{container, "eth0"}); err != nil {
		t.Fatal(err)
	}
}

// An address comes back when all others had their turn.
func TestAddressesInTurn(t *testing.T) {
	root := t.TempDir()
	steps := []struct{ release, allocate, want string }{
		{"", "a", "10.88.0.2"},
		{"", "b", "10.88.0.3"},
		{"", "c", "10.88.0.4"},
		{"", "b", "10.88.0.3"}, // again: the same address
		{"a", "d", "10.88.0.5"},
		{"a", "e", "10.88.0.6"}, // released twice: no effect
		{"b", "f", "10.88.0.7"},
		{"f", "g", "10.88.0.8"},
	}
	for _, s := range steps {
		if s.release != "" {
			release(t, root, s.release)
		}
		if got := allocate(t, root, s.allocate); got != s.want {
			t.Errorf("%s got %s, want %s", s.allocate, got, s.want)
		}
	}
	for i := 9; i <= 254; i++ {
		name := strconv.Itoa(i)
		if got, want := allocate(t, root, name), "10.88.0."+name; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		release(t, root, name)
	}
	for _, want := range []string{"10.88.0.2", "10.88.0.3", "10.88.0.7", "10.88.0.9"} { // the others are still held
		if got := allocate(t, root, "after "+want); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// What cannot be read is no reason to give no address.
func TestLastAddressIsNonsense(t *testing.T) {
	for _, content := range []string{"", "{", `"10.99.0.7"`, `"10.88.0.1"`, `"10.88.0.254"`, `"10.88.0.255"`, `"::1"`} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "last"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := allocate(t, root, "a"); got != "10.88.0.2" {
			t.Errorf("%q: got %s", content, got)
		}
	}
}

func TestHostPortsThatAreRefused(t *testing.T) {
	conf := &config{Subnet: testSubnet, Gateway: testGateway, ReservedPorts: []int{6443, 10250}}
	for _, c := range []struct {
		mapping portMapping
		want    string
	}{
		{portMapping{HostPort: 8080, Protocol: "tcp"}, ""},
		{portMapping{HostPort: 8080, Protocol: "tcp", HostIP: "0.0.0.0"}, ""},
		{portMapping{HostPort: 8080, Protocol: "tcp", HostIP: "127.0.0.1"}, ""},
		{portMapping{HostPort: 8080, Protocol: "tcp", HostIP: "10.88.0.1"}, ""},
		{portMapping{HostPort: 6443, Protocol: "udp"}, ""},
		{portMapping{HostPort: 0, ContainerPort: 6443, Protocol: "tcp"}, ""},
		{portMapping{HostPort: 6443, Protocol: "tcp"}, "host port 6443/TCP is the node's own: choose another, or none and a Service"},
		{portMapping{HostPort: 10250, Protocol: "TCP", HostIP: "127.0.0.1"}, "host port 10250/TCP is the node's own: choose another, or none and a Service"},
		{
			portMapping{HostPort: 80, Protocol: "tcp", HostIP: "10.96.0.7"},
			"host port 80/TCP wants host IP 10.96.0.7, which is no address of the node: it has 10.88.0.1 and 127.0.0.1",
		},
		{
			portMapping{HostPort: 80, Protocol: "udp", HostIP: "::1"},
			"host port 80/UDP wants host IP ::1, which is no address of the node: it has 10.88.0.1 and 127.0.0.1",
		},
		{
			portMapping{HostPort: 80, Protocol: "tcp", HostIP: "fd00:10:88::1"},
			"host port 80/TCP wants host IP fd00:10:88::1, which is no address of the node: it has 10.88.0.1 and 127.0.0.1",
		},
	} {
		conf.RuntimeConfig.PortMappings = []portMapping{{ContainerPort: 1, Protocol: "tcp"}, c.mapping}
		got := ""
		if err := refuseHostPorts(conf); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.mapping, got, c.want)
		}
	}
}

func TestHostPortsOfTheSecondFamily(t *testing.T) {
	conf := *dualConfig
	for host, refused := range map[string]bool{"": false, "::": false, "fd00:10:88::1": false, "fd00:10:88::2": true} {
		conf.RuntimeConfig.PortMappings = []portMapping{{HostPort: 80, Protocol: "tcp", HostIP: host}}
		if err := refuseHostPorts(&conf); (err != nil) != refused {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// TestCrashLeftovers: a hidden file is a write that never finished.
func TestCrashLeftovers(t *testing.T) {
	root := t.TempDir()
	allocate(t, root, "a")
	if err := os.WriteFile(filepath.Join(root, "leases", ".10.88.0.3"), []byte(`{"conta`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := allocate(t, root, "b"); got != "10.88.0.3" {
		t.Errorf("got %s", got)
	}
}

func TestFullSubnet(t *testing.T) {
	root := t.TempDir()
	l, err := openLeases(root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var last netip.Addr
	for i := range 253 {
		last, err = l.Allocate(testConfig, lease{attachment: attachment{strconv.Itoa(i), "eth0"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if last.String() != "10.88.0.254" {
		t.Errorf("last address %s", last)
	}
	_, err = l.Allocate(testConfig, lease{attachment: attachment{"more", "eth0"}})
	if err == nil || err.Error() != "no free address in 10.88.0.0/24: 253 are leased" {
		t.Errorf("error %v", err)
	}
}

func TestHostPortFile(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "hostports")
	id := attachment{"c1", "eth0"}
	address := netip.MustParseAddr("10.88.0.2")
	conf := *testConfig
	conf.RuntimeConfig.PortMappings = []portMapping{{ContainerPort: 80}}
	if err := writeHostPorts(folder, id, &conf, address); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("a pod without host ports wrote something: %v", err)
	}
	conf.RuntimeConfig.PortMappings = []portMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "TCP"}}
	for more, second := range map[string]*family{"": nil, `"second":"fd00:10:88::2",`: dualConfig.Second} {
		conf.Second = second
		if err := writeHostPorts(folder, id, &conf, address); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(folder, "c1-eth0.json"))
		want := `{"containerID":"c1","ifName":"eth0","address":"10.88.0.2",` + more +
			`"mappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}` + "\n"
		if err != nil || string(data) != want {
			t.Errorf("got %s, %v, want %s", data, err, want)
		}
	}
	for range 2 {
		if err := removeHostPorts(folder, id); err != nil {
			t.Error(err)
		}
	}
}

// dual is a configuration with a second family.
func dual(subnet, gateway string) string {
	return `{"subnet":"10.88.0.0/24","gateway":"10.88.0.1","second":{"subnet":"` + subnet + `","gateway":"` + gateway + `"}}`
}

// An address of the second family has the number of the first one's, and a lease is of both.
func TestSecondAddresses(t *testing.T) {
	wide := *dualConfig
	wide.Subnet, wide.Second = netip.MustParsePrefix("10.64.0.0/10"), &family{Subnet: netip.MustParsePrefix("fd00:1::/64")}
	for _, c := range []struct {
		conf      *config
		one, want string
	}{
		{dualConfig, "10.88.0.2", "fd00:10:88::2"}, {dualConfig, "10.88.0.254", "fd00:10:88::fe"}, {&wide, "10.88.1.2", "fd00:1::18:102"},
		{testConfig, "10.88.0.2", "invalid IP"},
	} {
		if got := c.conf.second(netip.MustParseAddr(c.one)); got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.one, got, c.want)
		}
	}
	root := t.TempDir()
	l, err := openLeases(root)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address, err := l.Allocate(dualConfig, lease{attachment: attachment{"a", "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	held, err := l.read()
	if err != nil || len(held) != 1 || held[address].Second.String() != "fd00:10:88::2" {
		t.Errorf("%v, %v", held, err)
	}
}

func TestConfigErrors(t *testing.T) {
	cases := []struct{ conf, want string }{
		{`{"subnet":"10.88.0.0/24","gateway":"10.88.0.1"}`, ""},
		{`{"gateway":"10.88.0.1"}`, `subnet: "invalid Prefix" is not an IPv4 network`},
		{`{"subnet":"10.88.0.9/24","gateway":"10.88.0.1"}`, `subnet: "10.88.0.9/24" is not an IPv4 network`},
		{`{"subnet":"10.88.0.0/24","gateway":"10.89.0.1"}`, `gateway: "10.89.0.1" is not in 10.88.0.0/24`},
		{dual("fd00::/120", "fd00::1"), ""},
		{dual("fd00::/121", "fd00::1"), `second: "fd00::/121" is not an IPv6 network as large as 10.88.0.0/24`},
		{dual("10.89.0.0/24", "10.89.0.1"), `second: "10.89.0.0/24" is not an IPv6 network as large as 10.88.0.0/24`},
		{dual("fd00::/64", "fd01::1"), `second: "fd01::1" is not in fd00::/64`},
	}
	for _, c := range cases {
		_, err := parseConfig([]byte(c.conf))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.conf, got, c.want)
		}
	}
}
