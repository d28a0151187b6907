package services

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"sandkube/node/cluster"
	"sandkube/node/fixes"
)

// TestPods joins the proxy to pods that the CNI plugin connected, with real
// addresses on lo. It needs root, PODNET naming the plugin's program, CNI_CONF
// the network configuration list, and a network stack and a /run of its own:
//
//	unshare --mount --net sh -c 'mount -t tmpfs none /run && PODNET=... CNI_CONF=... go test -run TestPods'
//
// The same test binary runs inside gVisor.
func TestPods(t *testing.T) {
	if os.Getenv("PODNET") == "" {
		t.Skip("PODNET names no CNI plugin")
	}
	prepareNode(t)
	server, client := newPod(t, "server", 8081), newPod(t, "client", 0)
	if server.address != "10.88.0.2" || client.address != "10.88.0.3" {
		t.Fatalf("addresses %s and %s", server.address, client.address)
	}
	f := start(t, func(p *proxy) {
		owner, err := openOwner("lo")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(owner.Close)
		p.table.owner = owner
		p.hostPortFolder = hostPortFolder
		p.node.Addresses = []netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("127.0.0.1")}
	})
	server.do(func() {
		serveTCP(t, server.address, func(conn *net.TCPConn) {
			n, _ := io.Copy(io.Discard, conn)
			fmt.Fprintf(conn, "%d from %s", n, conn.RemoteAddr().(*net.TCPAddr).IP)
		})
		serveUDP(t, server.address, "udp")
	})
	f.createService(testService("10.96.0.7", func(s *v1.ServiceSpec) {
		s.Ports = append(s.Ports, v1.ServicePort{Name: "udp", Port: 80, Protocol: v1.ProtocolUDP})
		s.Ports[0].NodePort = 30080
	}))
	f.createSlice(testSlice(v1.ProtocolTCP, 8080, endpoint(server.address)))
	udp := testSlice(v1.ProtocolUDP, 8080, endpoint(server.address))
	udp.Name, udp.Ports[0].Name = "web-2", ptr("udp")
	f.createSlice(udp)
	empty := testService("10.96.0.8")
	empty.Name = "empty"
	f.createService(empty)
	const size = 8 << 20
	want := fmt.Sprintf("%d from 10.88.0.1", size)
	for _, from := range []pod{{name: "node"}, server, client} {
		addresses := []string{"10.96.0.7:80", "10.88.0.1:30080", "10.88.0.1:8081"}
		if from.name == "node" {
			addresses = append(addresses, "127.0.0.1:30080", "127.0.0.1:8081")
		}
		from.do(func() {
			for _, address := range addresses {
				began := time.Now()
				eventually(t, from.name+" to "+address, func() bool { return upload(t, address, size) == want })
				t.Logf("%s to %s: %d MB in %s", from.name, address, size>>20, time.Since(began))
			}
			if _, err := ask("10.96.0.8:80"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s to a service without endpoints: %v", from.name, err)
			}
			conn, err := net.Dial("udp4", "10.96.0.7:80")
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for _, text := range []string{"a", strings.Repeat("x", 1400), strings.Repeat("y", 20000)} {
				if got := askUDP(t, conn, text); got != "udp:"+text {
					t.Errorf("%s: UDP answer of %d bytes", from.name, len(got))
				}
			}
		})
	}
	server.remove()
	eventually(t, "host port closed", func() bool {
		_, err := ask("127.0.0.1:8081")
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// upload sends size bytes, closes its side and returns the answer.
func upload(t *testing.T, address string, size int) string {
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Logf("%s: %v", address, err)
		return ""
	}
	defer conn.Close()
	if _, err := conn.Write(bytes.Repeat([]byte("x"), size)); err != nil {
		return ""
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return ""
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func prepareNode(t *testing.T) {
	t.Helper()
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := handle.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	node := netlinkAddress(netip.MustParseAddr("10.88.0.1"))
	if err := handle.AddrAdd(lo, node); err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(hostPortFolder, 0o700); err != nil {
		t.Fatal(err)
	}
}

// pod is a network namespace that the plugin connected; the zero namespace is
// the node's.
type pod struct {
	name    string
	address string
	remove  func()
}

func (p pod) path() string { return filepath.Join("/run/netns", p.name) }

// do runs f in the pod's namespace: sockets made there belong to it.
func (p pod) do(f func()) {
	if p.address == "" {
		f()
		return
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		namespace, err := netns.GetFromPath(p.path())
		if err == nil {
			defer namespace.Close()
			err = netns.Set(namespace)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		panic(err)
	}
}

func newPod(t *testing.T, name string, hostPort int) pod {
	t.Helper()
	p := pod{name: name}
	made := make(chan error)
	go func() {
		runtime.LockOSThread()
		namespace, err := netns.NewNamed(name)
		if err == nil {
			namespace.Close()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	var result struct {
		IPs []struct{ Address string }
	}
	if err := json.Unmarshal(p.cni(t, "ADD", hostPort), &result); err != nil {
		t.Fatal(err)
	}
	p.address, _, _ = strings.Cut(result.IPs[0].Address, "/")
	p.remove = func() { p.cni(t, "DEL", 0) }
	return p
}

// cni calls the plugin the way that libcni does.
func (p pod) cni(t *testing.T, command string, hostPort int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "conf")
	if err := (fixes.Plan{}).Render(cluster.Default, os.Getenv("CNI_CONF"), path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion string
		Name       string
		Plugins    []map[string]any
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	conf["runtimeConfig"] = map[string]any{"portMappings": []map[string]any{{"hostPort": hostPort, "containerPort": 8080, "protocol": "TCP"}}}
	input, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Getenv("PODNET"))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.name, "CNI_NETNS=" + p.path(), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin"}
	cmd.Stdin = bytes.NewReader(input)
	began := time.Now()
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", command, p.name, err, output)
	}
	t.Logf("%s %s: %s", command, p.name, time.Since(began))
	return output
}
