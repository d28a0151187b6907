package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestHostName(t *testing.T) {
	seen := map[string]attachment{}
	for _, container := range []string{"", "a", "b", strings.Repeat("c", 64)} {
		for _, name := range []string{"eth0", "eth1", "a/eth0"} {
			id := attachment{container, name}
			host := hostName(id)
			if host != hostName(id) || !strings.HasPrefix(host, "pod") || len(host) > unix.IFNAMSIZ-1 {
				t.Errorf("%s: %q", id, host)
			}
			if other, known := seen[host]; known {
				t.Errorf("%v and %v are both %s", id, other, host)
			}
			seen[host] = id
		}
	}
}

func TestResult(t *testing.T) {
	conf, err := parseConfig([]byte(network))
	if err != nil {
		t.Fatal(err)
	}
	outside, inside := netlink.NewLinkAttrs(), netlink.NewLinkAttrs()
	outside.Name, outside.HardwareAddr = "pod0", []byte{2, 0, 0, 0, 0, 1}
	inside.Name, inside.HardwareAddr = "eth0", []byte{2, 0, 0, 0, 0, 2}
	made := result(conf, "/run/netns/x", hostNet(netip.MustParseAddr("10.88.0.2")),
		&netlink.Dummy{LinkAttrs: outside}, &netlink.Dummy{LinkAttrs: inside})
	got, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"1.1.0",` +
		`"interfaces":[{"mac":"02:00:00:00:00:01","name":"pod0"},` +
		`{"mac":"02:00:00:00:00:02","name":"eth0","sandbox":"/run/netns/x"}],` +
		`"ips":[{"address":"10.88.0.2/32","gateway":"10.88.0.1","interface":1}]}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

const network = `{
	"cniVersion": "1.1.0", "name": "pods", "type": "podnet",
	"subnet": "10.88.0.0/24", "gateway": "10.88.0.1",
	"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": "127.0.0.1"}]}
}`

func TestConfig(t *testing.T) {
	conf, err := parseConfig([]byte(network))
	if err != nil {
		t.Fatal(err)
	}
	if conf.Subnet != testSubnet || conf.Gateway != testGateway || conf.Name != "pods" {
		t.Errorf("%+v", conf)
	}
	want := portMapping{HostPort: 80, ContainerPort: 8080, Protocol: "TCP", HostIP: "127.0.0.1"}
	if got := conf.RuntimeConfig.PortMappings; len(got) != 1 || got[0] != want {
		t.Errorf("port mappings %+v", got)
	}
}

// inNamespaces runs one test of this program again, as root of a user namespace with a network of its own.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	const mark = "PODNET_TEST_INSIDE"
	if os.Getenv(mark) != "" {
		return true
	}
	command := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), mark+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	said, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("this machine gives no user namespace: %v", err)
	}
	if err != nil || !strings.Contains(string(said), "--- PASS: "+t.Name()) {
		t.Fatalf("inside: %v\n%s", err, said)
	}
	return false
}

// newNamespace makes the network of a pod; the path of it is good as long as the test runs.
func newNamespace(t *testing.T) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	made, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	if err := netns.Set(own); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), made)
}

// The real devices of a kernel: made, checked, made again over what a crash left, and removed.
func TestDevices(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	conf, err := parseConfig([]byte(network))
	if err != nil {
		t.Fatal(err)
	}
	id, address := attachment{"container", "eth0"}, netip.MustParseAddr("10.88.0.2")
	pod := newNamespace(t)
	if verify(conf, id, pod, address) == nil {
		t.Error("devices that were never made are fine")
	}
	made, err := connect(conf, id, pod, address)
	if err != nil {
		t.Fatal(err)
	}
	if made.Interfaces[0].Name != hostName(id) || made.Interfaces[1].Name != "eth0" || made.Interfaces[1].Sandbox != pod {
		t.Errorf("interfaces %v and %v", made.Interfaces[0], made.Interfaces[1])
	}
	if err := verify(conf, id, pod, address); err != nil {
		t.Error(err)
	}
	if err := verify(conf, id, pod, address.Next()); err == nil || err.Error() != "eth0 does not carry 10.88.0.3" {
		t.Errorf("another address: %v", err)
	}
	checkRoutes(t, pod, address)
	again := newNamespace(t)
	if _, err := connect(conf, id, again, address); err != nil {
		t.Fatalf("over what a crash left: %v", err)
	}
	if err := verify(conf, id, again, address); err != nil {
		t.Error(err)
	}
	for range 2 { // DEL may come twice
		if err := disconnect(id); err != nil {
			t.Error(err)
		}
	}
	if verify(conf, id, again, address) == nil {
		t.Error("devices that were removed are fine")
	}
}

// The same in a cluster of dual stack, whose pods reach the gateway over IPv6.
func TestDevicesOfTwoFamilies(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	conf, id, address := dualConfig, attachment{"container", "eth0"}, netip.MustParseAddr("10.88.0.2")
	pod := newNamespace(t)
	made, err := connect(conf, id, pod, address)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := recorded(made), conf.sides(address); !slices.Equal(got, want) {
		t.Errorf("recorded are %v, not %v", got, want)
	}
	if err := verify(conf, id, pod, address); err != nil {
		t.Error(err)
	}
	if err := verify(conf, id, pod, address.Next()); err == nil || err.Error() != "eth0 does not carry 10.88.0.3" {
		t.Errorf("another address: %v", err)
	}
	for _, each := range []struct{ from, at, to string }{
		{pod, "", "10.88.0.1"}, {pod, "", "fd00:10:88::1"}, {"", pod, "fd00:10:88::2"}, {pod, pod, "::1"},
	} {
		if err := reach(t, each.from, each.at, each.to); err != nil {
			t.Errorf("%s: %v", each.to, err)
		}
	}
	if err := disconnect(id); err != nil {
		t.Error(err)
	}
}

// On a node that made a bridge: pods are its ports, and reach the gateway and each other through it.
func TestBridge(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	conf, err := parseConfig([]byte(strings.Replace(network, `"gateway"`, `"bridge": "pods", "gateway"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "pods"
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		t.Fatal(err)
	}
	for _, each := range []string{"10.88.0.1/24", "10.96.0.10/32"} {
		address, err := netlink.ParseAddr(each)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(bridge, address); err != nil {
			t.Fatal(err)
		}
	}
	pods := map[string]string{}
	for address := testGateway.Next(); len(pods) < 2; address = address.Next() {
		id, pod := attachment{address.String(), "eth0"}, newNamespace(t)
		pods[address.String()] = pod
		made, err := connect(conf, id, pod, address)
		if err != nil {
			t.Fatal(err)
		}
		if got := made.IPs[0].Address.String(); got != address.String()+"/24" {
			t.Errorf("address %s", got)
		}
		if err := verify(conf, id, pod, address); err != nil {
			t.Error(err)
		}
	}
	for _, each := range []struct{ from, to string }{
		{"10.88.0.2", "10.88.0.1"}, {"10.88.0.2", "10.88.0.3"}, {"10.88.0.3", "10.96.0.10"}, {"", "10.88.0.3"},
	} {
		if err := reach(t, pods[each.from], pods[each.to], each.to); err != nil {
			t.Errorf("%s to %s: %v", each.from, each.to, err)
		}
	}
	id, address := attachment{"10.88.0.2", "eth0"}, netip.MustParseAddr("10.88.0.2")
	link, err := netlink.LinkByName(hostName(id))
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNoMaster(link); err != nil {
		t.Fatal(err)
	}
	if err := verify(conf, id, pods["10.88.0.2"], address); err == nil || err.Error() != hostName(id)+" is not on pods" {
		t.Errorf("off the bridge: %v", err)
	}
}

// reach connects from one network namespace to an address that is listened at in another; "" is this one.
func reach(t *testing.T, from, at, address string) error {
	t.Helper()
	listener, err := netns.GetFromPath(at)
	if at == "" {
		listener, err = netns.Get()
	}
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := netns.GetFromPath(from)
	if from == "" {
		client, err = netns.Get()
	}
	if err != nil {
		return err
	}
	defer client.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	defer func() { _ = netns.Set(own) }()
	if err := netns.Set(listener); err != nil {
		return err
	}
	socket, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := netns.Set(client); err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", socket.Addr().String(), 10*time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

func checkRoutes(t *testing.T, pod string, address netip.Addr) {
	t.Helper()
	namespace, err := netns.GetFromPath(pod)
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	inside, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	routes, err := inside.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	var direct, gateway bool
	for _, each := range routes {
		direct = direct || each.Gw == nil && each.Dst.String() == "10.88.0.1/32" && each.Scope == netlink.SCOPE_LINK
		gateway = gateway || each.Gw != nil && each.Gw.String() == "10.88.0.1"
	}
	if len(routes) != 2 || !direct || !gateway {
		t.Errorf("routes of %s: %v", address, routes)
	}
	lo, err := inside.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&1 == 0 {
		t.Errorf("lo is down: %v", err)
	}
}

func TestNoNamespace(t *testing.T) {
	conf, err := parseConfig([]byte(network))
	if err != nil {
		t.Fatal(err)
	}
	_, err = connect(conf, attachment{"c", "eth0"}, "/nonexistent/netns", testGateway.Next())
	if err == nil || !strings.Contains(err.Error(), "open network namespace /nonexistent/netns") {
		t.Errorf("error %v", err)
	}
}
