// Package components starts what a Kubernetes node is made of: containerd as
// a child, everything else in this process.
package components

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

const notifySocket = "/run/sandkube/notify.sock"

// Configurations that the node fills in at each boot.
const (
	ContainerdConfig = "/run/sandkube/containerd.toml"
	KubeletConfig    = "/run/sandkube/kubelet.yaml"
)

// Containerd runs containerd until ctx ends; ready is called when it says that it
// serves (sd_notify(3)). runc is for the wrapper around it. It returns why it ended.
func Containerd(ctx context.Context, output io.Writer, runc string, ready func()) error {
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
	command := exec.CommandContext(ctx, "/usr/bin/containerd", "--config", ContainerdConfig)
	command.Env = append(os.Environ(), "NOTIFY_SOCKET="+notifySocket, "RUNC_WRAPPER_RUNC="+runc)
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return command.Run()
}
