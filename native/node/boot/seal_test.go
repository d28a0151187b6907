package boot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestASealedProgramRunsAndStaysAsItIs(t *testing.T) {
	if os.Getenv("SANDKUBE_TEST_SEALED") != "" {
		t.Skip("this is the program")
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "program")
	for range 2 { // the second time it is there
		if err := Seal(own, link); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(link, "-test.run=^TestASealedProgramRunsAndStaysAsItIs$")
	command.Env = append(os.Environ(), "SANDKUBE_TEST_SEALED=1")
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	file, err := os.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || got&seals != seals {
		t.Errorf("seals %x, %v", got, err)
	}
	if file, err := os.OpenFile(link, os.O_WRONLY, 0); err == nil {
		if _, err := file.Write([]byte("x")); err == nil {
			t.Error("it can be changed")
		}
		_ = file.Close()
	}
	if err := Seal("/no/program", link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}
