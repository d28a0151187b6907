// Command imagestore makes a containerd root folder with images in it, ready
// to be used: content, unpacked snapshots and both databases.
//
//	imagestore --out DIR [--namespace k8s.io] NAME=LAYOUT ...
//
// LAYOUT is an OCI image layout of one image for linux/amd64. The same images
// give the same bytes, whatever their order, the clock, the user, the umask
// and the folder. Modes are not part of that: of a file in a snapshot it counts
// whether it may be executed, what else there is to know is in modes.json.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	out := flag.String("out", "", "folder to fill; it must be empty")
	namespace := flag.String("namespace", "k8s.io", "containerd namespace of the images")
	flag.Parse()
	if err := run(*out, *namespace, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "imagestore:", err)
		os.Exit(1)
	}
}

func run(out, namespace string, arguments []string) error {
	if out == "" || len(arguments) == 0 {
		return fmt.Errorf("usage: imagestore --out DIR NAME=LAYOUT [NAME=LAYOUT ...]")
	}
	var images []layout
	for _, each := range arguments {
		name, folder, found := strings.Cut(each, "=")
		if !found {
			return fmt.Errorf("expected NAME=LAYOUT, got %q", each)
		}
		image, err := open(name, folder)
		if err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
		images = append(images, image)
	}
	// Snapshots are numbered in the order of their making.
	slices.SortFunc(images, func(a, b layout) int { return strings.Compare(a.name, b.name) })
	unix.Umask(0o022)
	return build(context.Background(), out, namespace, images)
}
