package components

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Role is this program in another role, as a process of its own.
type Role struct {
	Word       string
	Told       any               // what it reads from standard input, as JSON
	Log        io.Writer         // gets its standard error
	Said       func(line []byte) // is called with each line of its standard output
	Attributes *unix.SysProcAttr // of the process; none if nil
	Begun      func(*os.Process) // is called when it runs; not if nil
}

// Run runs it until it or ctx ends, and has heard all that it said when it returns why.
func (r Role) Run(ctx context.Context) error {
	told, err := json.Marshal(r.Told)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		defer reader.Close()
		for lines := bufio.NewReader(reader); ; {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			r.Said(line[:len(line)-1])
		}
	}()
	command := exec.CommandContext(ctx, program, r.Word)
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(told), writer, r.Log
	command.SysProcAttr = r.Attributes
	err = Command(command, func() {
		if r.Begun != nil {
			r.Begun(command.Process)
		}
	})
	_ = writer.Close()
	<-heard
	return err
}
