package boot

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// seals are those by which runc knows that nobody can change what it runs from (libcontainer/exeseal, runc 1.3): it
// copies itself into memory at each start otherwise, all 12 MB.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// held are the files of such copies.
var held []*os.File

// Seal has link lead to a copy of a program in memory that nobody can change, which is there for as long as this process
// lives; to the program itself where the kernel has no such files.
func Seal(program, link string) error {
	copied, err := sealed(program)
	if errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err != nil {
		klog.InfoS("Not sealed", "program", program, "why", err)
		copied = program
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(copied, link)
}

// sealed returns the path of the copy.
func sealed(program string) (string, error) {
	source, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer source.Close()
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	descriptor, err := unix.MemfdCreate(program, flags|unix.MFD_EXEC) // since Linux 6.3, where vm.memfd_noexec may ask for it
	if errors.Is(err, unix.EINVAL) {
		descriptor, err = unix.MemfdCreate(program, flags)
	}
	if err != nil {
		return "", fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(descriptor), program)
	_, err = io.Copy(file, source)
	if err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		_ = file.Close()
		return "", err
	}
	held = append(held, file)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), descriptor), nil
}
