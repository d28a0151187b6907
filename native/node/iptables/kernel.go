package iptables

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket options of ip_tables (uapi linux/netfilter_ipv4/ip_tables.h) and of ip6_tables, which has the same, and the size of what
// comes before the entries.
const (
	setReplace  = 64
	getInfo     = 64
	getEntries  = 65
	tableName   = 32 // XT_TABLE_MAXNAMELEN
	infoSize    = 84
	counterSize = 16
	replaceSize = 96
)

// Replace has the kernel of this network use the table from now on, in place of the one of that name.
func Replace(table Table) error {
	if err := table.validate(); err != nil {
		return err
	}
	return table.layout().withSocket(func(socket int) error {
		err := replace(socket, table.tracked())
		if errors.Is(err, unix.EINVAL) { // gVisor, which can do without
			err = replace(socket, table)
		}
		return err
	})
}

func replace(socket int, table Table) error {
	as := table.layout()
	count, _, err := as.info(socket, table.Name)
	if err != nil {
		return fmt.Errorf("asking for the table %s: %w", table.Name, err)
	}
	var pinned runtime.Pinner
	defer pinned.Unpin()
	counters := make([]byte, max(1, count)*counterSize) // which the kernel hands back
	pinned.Pin(&counters[0])
	text := table.encode().replacement(table.Name, count, uintptr(unsafe.Pointer(&counters[0])))
	if err := unix.SetsockoptString(socket, as.level, setReplace, string(text)); err != nil {
		return fmt.Errorf("replacing the table %s by one of %d bytes: %w", table.Name, len(text), err)
	}
	runtime.KeepAlive(counters)
	return nil
}

// replacement is struct ipt_replace with its entries.
func (e encoded) replacement(name string, counters uint32, at uintptr) []byte {
	text := make([]byte, replaceSize, replaceSize+len(e.entries))
	copy(text, name)
	native.PutUint32(text[32:], e.hooks)
	native.PutUint32(text[36:], e.count)
	native.PutUint32(text[40:], uint32(len(e.entries)))
	for hook := range hooks {
		native.PutUint32(text[44+4*hook:], e.starts[hook])
		native.PutUint32(text[64+4*hook:], e.underflow[hook])
	}
	native.PutUint32(text[84:], counters)
	native.PutUint64(text[88:], uint64(at))
	return append(text, e.entries...)
}

// withSocket calls work with a socket that takes the options.
func (as layout) withSocket(work func(socket int) error) error {
	socket, err := unix.Socket(as.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)
	return work(socket)
}

// info tells how many entries a table has, and their size.
func (as layout) info(socket int, name string) (count, size uint32, err error) {
	text := make([]byte, infoSize)
	copy(text, name)
	if err := as.get(socket, getInfo, text); err != nil {
		return 0, 0, err
	}
	return native.Uint32(text[76:]), native.Uint32(text[80:]), nil
}

// entries are those of a table, without what the kernel counted.
func (as layout) entries(name string) ([]byte, error) {
	var text []byte
	err := as.withSocket(func(socket int) error {
		_, size, err := as.info(socket, name)
		if err != nil {
			return err
		}
		text = make([]byte, tableName+8+size)
		copy(text, name)
		native.PutUint32(text[tableName:], size)
		return as.get(socket, getEntries, text)
	})
	if err != nil {
		return nil, err
	}
	found := text[tableName+8:]
	for at := 0; at < len(found); at += int(native.Uint16(found[at+as.target+2:])) {
		clear(found[at+as.counted : at+as.entry])
	}
	return found, nil
}

// get calls getsockopt(2) with a buffer that holds what is asked for, and the answer afterwards.
func (as layout) get(socket, option int, buffer []byte) error {
	length := uint32(len(buffer))
	_, _, failed := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(as.level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0)
	if failed != 0 {
		return os.NewSyscallError("getsockopt", failed)
	}
	return nil
}
