package relay

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gateway is the other side: what sandkube/cluster/pull.py does. Each stream that is asked for is answered by serve.
func gateway(t *testing.T, serve func(*net.UnixConn)) (address, secret string) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	folder, ended := t.TempDir(), make(chan error, 1)
	go func() { ended <- Pull(context.Background(), os.NewFile(uintptr(pair[1]), "control"), folder) }()
	t.Cleanup(func() {
		_ = unix.Shutdown(pair[0], unix.SHUT_RDWR)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		unix.Close(pair[0])
	})
	go func() {
		for one := make([]byte, 1); ; {
			if length, err := unix.Read(pair[0], one); err != nil || length == 0 {
				return
			}
			stream, theirs := streams(t)
			if err := unix.Sendmsg(pair[0], one, unix.UnixRights(theirs), nil, 0); err != nil {
				t.Error(err)
			}
			unix.Close(theirs)
			go serve(stream)
		}
	}()
	path := filepath.Join(folder, "_default/hosts.toml")
	for until := time.Now().Add(20 * time.Second); ; {
		said, err := os.ReadFile(path)
		if err == nil {
			if mode, err := os.Stat(path); err != nil || mode.Mode().Perm() != 0o600 {
				t.Fatal(mode, err)
			}
			found := regexp.MustCompile(`(?s)^server = "http://(.*?)"\n.*\nSandkube-Pull = "(\w{26,})"\n$`).FindSubmatch(said)
			if found == nil {
				t.Fatalf("%s", said)
			}
			return string(found[1]), string(found[2])
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func streams(t *testing.T) (*net.UnixConn, int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(pair[0]), "stream")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn), pair[1]
}

func asked(t *testing.T, address, secret string) *http.Response {
	t.Helper()
	request, _ := http.NewRequest(http.MethodGet, "http://"+address+"/v2/a/manifests/1", nil)
	if secret != "" {
		request.Header.Set(secretHeader, secret)
	}
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

// TestPull: who knows the secret has a stream to the host, with all that was said, and hears its words.
func TestPull(t *testing.T) {
	address, secret := gateway(t, func(stream *net.UnixConn) {
		defer stream.Close()
		request, err := http.ReadRequest(bufio.NewReader(stream))
		if err != nil || request.URL.Path != "/v2/a/manifests/1" {
			t.Error(err, request)
		}
		_, _ = io.WriteString(stream, "HTTP/1.1 403 not this one\r\nContent-Length: 4\r\n\r\nbody")
	})
	for range 3 {
		answer := asked(t, address, secret)
		body, err := io.ReadAll(answer.Body)
		if answer.Status != "403 not this one" || string(body) != "body" || err != nil {
			t.Error(answer.Status, string(body), err)
		}
	}
}

// TestPullIsForContainerdOnly: nobody else has a stream.
func TestPullIsForContainerdOnly(t *testing.T) {
	address, secret := gateway(t, func(stream *net.UnixConn) { t.Error("the host was asked"); stream.Close() })
	for _, wrong := range []string{"", "a", secret[1:], secret + "a"} {
		if answer := asked(t, address, wrong); answer.Status != "403 only containerd pulls images" {
			t.Error(answer.Status)
		}
	}
}

// TestPullOfNoRequest: what is no request, or has no end, ends the connection and has no stream.
func TestPullOfNoRequest(t *testing.T) {
	address, _ := gateway(t, func(stream *net.UnixConn) { t.Error("the host was asked"); stream.Close() })
	for _, said := range []string{"\x16\x03\x01\x02\x00\r\n\r\n", "GET / HTTP/1.1\r\nX: " + string(make([]byte, longestHead))} {
		conn, err := net.Dial("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, said)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("an answer")
		}
	}
}

// TestAHostThatEndsWithRequestsUnread resets the socket, which is its end as well.
func TestAHostThatEndsWithRequestsUnread(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostOf(os.NewFile(uintptr(pair[1]), "control"))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := host.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	unix.Close(pair[0])
	if err := receive(host, 16, nil); err != nil {
		t.Error(err)
	}
}
