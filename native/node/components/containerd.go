// Package components starts what a Kubernetes node is made of: containerd as
// a child, everything else in this process.
package components

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"

	"sandkube/node/settings"
)

const (
	notifySocket     = "/run/sandkube/notify.sock"
	containerdSocket = "/run/containerd/containerd.sock"
)

// Configurations that the node fills in at each boot.
const (
	ContainerdConfig = "/run/sandkube/containerd.toml"
	KubeletConfig    = "/run/sandkube/kubelet.yaml"
)

// Containerd runs containerd until ctx ends; ready is called when it says that it
// serves (sd_notify(3)). runc is for the wrapper around it, arguments are more than its own. It returns why it ended.
func Containerd(ctx context.Context, output io.Writer, runc string, arguments []string, ready func()) error {
	_ = os.Remove(notifySocket)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer socket.Close()
	go func() {
		message := make([]byte, 4096)
		for {
			length, err := socket.Read(message)
			if err != nil {
				return
			}
			if strings.Contains(string(message[:length]), "READY=1") {
				ready()
				return
			}
		}
	}()
	command := exec.CommandContext(ctx, "/usr/bin/containerd", settings.Arguments([]string{"--config=" + ContainerdConfig}, arguments)...)
	command.Env = append(os.Environ(), "NOTIFY_SOCKET="+notifySocket, "RUNC_WRAPPER_RUNC="+runc)
	command.Stdout, command.Stderr = output, output
	return Command(command)
}

// ContainerdServes returns when somebody can connect to containerd, which may have ended since it said that it serves:
// the kubelet gives up at the first refusal.
func ContainerdServes(ctx context.Context) error {
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) {
		connection, err := net.Dial("unix", containerdSocket)
		if err != nil {
			return false, nil
		}
		return true, connection.Close()
	})
}

// Command runs a program that ends when this process does. The signal for that comes when the thread ends that started
// it (prctl(2), PR_SET_PDEATHSIG; go.dev/issue/27505), so the goroutine keeps its thread.
// begun is called when the program runs.
func Command(command *exec.Cmd, begun ...func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if command.SysProcAttr == nil {
		command.SysProcAttr = &unix.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = unix.SIGKILL
	if err := command.Start(); err != nil {
		return err
	}
	for _, each := range begun {
		each()
	}
	return command.Wait()
}
