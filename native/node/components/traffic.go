package components

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"

	"sandkube/node/traffic"
)

// Traffic runs the process that serves what pods send until ctx ends; serves is called with each part of it that does.
// log gets its log, in which lines have their component. It returns why it ended.
func Traffic(ctx context.Context, settings traffic.Settings, log io.Writer, serves func(part string)) error {
	data, err := json.Marshal(settings)
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
	go func() {
		defer reader.Close()
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			serves(lines.Text())
		}
	}()
	command := exec.CommandContext(ctx, program, traffic.Role)
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(data), writer, log
	defer writer.Close()
	return Command(command)
}
