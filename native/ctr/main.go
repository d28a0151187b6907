// Command ctr is containerd's own client with one command more, by which images get into a node and out of it:
//
//	ctr sandkube load           import images of an archive on standard input, if they are not there (load.go)
//	ctr sandkube list           print what pods can be made from
//	ctr sandkube remove IMAGE   remove an image that no pod uses
//
// Each line of their standard output is a JSON document; what went wrong is the field "error" of the last.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namespace is the one of the CRI plug-in (containerd's internal/cri/constants).
const namespace = "k8s.io"

// node is containerd, by its own interface and by the one that the kubelet sees.
type node struct {
	client *client.Client
	images cri.ImageServiceClient
	pods   cri.RuntimeServiceClient
}

func open(address string) (*node, error) {
	made, err := client.New(address, client.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, err
	}
	connection := made.Conn().(*grpc.ClientConn)
	return &node{made, cri.NewImageServiceClient(connection), cri.NewRuntimeServiceClient(connection)}, nil
}

// command is one of ours: its work takes one word, or none if words is "".
func command(name, words, usage string, work func(context.Context, *node, string) error) *cli.Command {
	run := func(given *cli.Context) error {
		found, err := open(given.String("address"))
		if err == nil {
			defer found.client.Close()
			err = work(given.Context, found, given.Args().First())
		}
		if err != nil {
			say(map[string]string{"error": err.Error()})
			os.Exit(1)
		}
		return nil
	}
	return &cli.Command{Name: name, ArgsUsage: words, Usage: usage, Action: run}
}

// say prints a document.
func say(document any) {
	if err := json.NewEncoder(os.Stdout).Encode(document); err != nil {
		fmt.Fprintln(os.Stderr, "ctr:", err)
		os.Exit(1)
	}
}

func main() {
	app := app.New()
	app.Commands = append(app.Commands, &cli.Command{
		Name:  "sandkube",
		Usage: "what ./do and sandkube do about images",
		Subcommands: []*cli.Command{
			command("load", "", "import images of the archive on standard input", load),
			command("list", "", "print what pods can be made from", list),
			command("remove", "IMAGE", "remove an image that no pod uses", remove),
		},
	})
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "ctr: %s\n", err)
		os.Exit(1)
	}
}
