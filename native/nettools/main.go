// Command nettools is curl, dig, getent and nc by the name that it is called by, with the options that Kubernetes'
// own suite gives them in its pods: a static program for images that have no C library.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// failure ends a tool with the exit status that the real one has for it.
type failure struct {
	status int
	err    error
}

func (f failure) Error() string { return f.err.Error() }

var tools = map[string]func([]string) error{"curl": curl, "dig": dig, "getent": getent, "nc": nc}

func main() {
	name := filepath.Base(os.Args[0])
	tool, found := tools[name]
	if !found {
		fmt.Fprintf(os.Stderr, "nettools: call it curl, dig, getent or nc, not %s\n", name)
		os.Exit(2)
	}
	err := tool(os.Args[1:])
	if err == nil {
		return
	}
	if err.Error() != "" {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	status := 1
	var known failure
	if errors.As(err, &known) {
		status = known.status
	}
	os.Exit(status)
}
