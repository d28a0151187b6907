package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attachment names one interface of one container, the unit of CNI.
type attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

func (a attachment) String() string { return a.ContainerID + "/" + a.IfName }

// lease is the content of one lease file. Netns is kept so that the node can
// make the devices again after a restore, which loses them; Pod tells whose
// address it is, before the API does; Second is the address of the second family
// that comes with it, if there is one.
type lease struct {
	attachment
	Netns  string     `json:"netns"`
	Pod    pod        `json:"pod"`
	Second netip.Addr `json:"second,omitzero"`
}

// pod is a pod of the API.
type pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// leases is the locked folder of addresses in use. A lease is written to a
// hidden name and renamed, so that a crash leaves either all of it or nothing.
type leases struct {
	folder string
	last   string // the file that has the address given out last
	lock   *os.File
}

// openLeases waits until no other invocation works on the folder.
func openLeases(root string) (*leases, error) {
	folder := filepath.Join(root, "leases")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(root, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return &leases{folder: folder, last: filepath.Join(root, "last"), lock: lock}, nil
}

func (l *leases) Close() { l.lock.Close() }

// Allocate returns the address already leased to the attachment, or else the
// first free one behind the one that was given out last, and above the gateway:
// an address that was just released may still be known as its last pod's. The
// last address of the subnet is its broadcast address and never given out.
func (l *leases) Allocate(conf *config, want lease) (netip.Addr, error) {
	subnet, gateway := conf.Subnet, conf.Gateway
	held, err := l.read()
	if err != nil {
		return netip.Addr{}, err
	}
	for address, have := range held {
		if have.attachment == want.attachment {
			return address, l.write(conf, address, want)
		}
	}
	given := func(address netip.Addr) bool { return gateway.Less(address) && subnet.Contains(address.Next()) }
	first := gateway.Next()
	if last := l.readLast(); given(last) && given(last.Next()) {
		first = last.Next()
	}
	for address := first; given(address); {
		if _, used := held[address]; !used {
			return address, errors.Join(l.write(conf, address, want), writeFile(l.last, address))
		}
		if address = address.Next(); !given(address) {
			address = gateway.Next()
		}
		if address == first {
			break
		}
	}
	return netip.Addr{}, fmt.Errorf("no free address in %s: %d are leased", subnet, len(held))
}

// readLast is invalid if none was given out yet, or nobody can tell: then the lowest is the first to be tried.
func (l *leases) readLast() netip.Addr {
	var last netip.Addr
	if data, err := os.ReadFile(l.last); err != nil || json.Unmarshal(data, &last) != nil {
		return netip.Addr{}
	}
	return last
}

// Find returns the address leased to the attachment.
func (l *leases) Find(id attachment) (netip.Addr, bool, error) {
	held, err := l.read()
	if err != nil {
		return netip.Addr{}, false, err
	}
	for address, have := range held {
		if have.attachment == id {
			return address, true, nil
		}
	}
	return netip.Addr{}, false, nil
}

// Release frees the attachment's address; without one it does nothing.
func (l *leases) Release(id attachment) error {
	address, found, err := l.Find(id)
	if err != nil || !found {
		return err
	}
	return os.Remove(filepath.Join(l.folder, address.String()))
}

// Attachments lists everything that holds an address.
func (l *leases) Attachments() ([]attachment, error) {
	held, err := l.read()
	if err != nil {
		return nil, err
	}
	ids := make([]attachment, 0, len(held))
	for _, have := range held {
		ids = append(ids, have.attachment)
	}
	return ids, nil
}

func (l *leases) read() (map[netip.Addr]lease, error) {
	entries, err := os.ReadDir(l.folder)
	if err != nil {
		return nil, err
	}
	held := make(map[netip.Addr]lease, len(entries))
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		address, err := netip.ParseAddr(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("lease %s: %w", filepath.Join(l.folder, entry.Name()), err)
		}
		data, err := os.ReadFile(filepath.Join(l.folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		var have lease
		if err := json.Unmarshal(data, &have); err != nil {
			return nil, fmt.Errorf("lease of %s: %w", address, err)
		}
		held[address] = have
	}
	return held, nil
}

func (l *leases) write(conf *config, address netip.Addr, content lease) error {
	content.Second = conf.second(address)
	return writeFile(filepath.Join(l.folder, address.String()), content)
}

// writeFile replaces a JSON file in one step. The hidden temporary name is
// fixed: a leftover of a crash is overwritten by the next try.
func writeFile(path string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temporary, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
