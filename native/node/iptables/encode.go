package iptables

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes of the kernel's structures on x86-64; those that are matches and targets are multiples of eight.
const (
	nameSize     = 29  // XT_FUNCTION_MAXNAMELEN, less the revision
	entrySize    = 112 // struct ipt_entry
	matchSize    = 48  // struct xt_entry_match with xt_tcp or xt_udp
	standardSize = 40  // struct xt_standard_target
	errorSize    = 64  // struct xt_error_target
	dnatSize     = 56  // struct xt_entry_target with nf_nat_ipv4_multi_range_compat
)

// encoded is a table as the kernel has it.
type encoded struct {
	entries   []byte
	count     uint32
	hooks     uint32
	starts    [hooks]uint32
	underflow [hooks]uint32
}

func (r Rule) size() int {
	size := entrySize + r.targetSize()
	if r.matches() {
		size += matchSize
	}
	return size
}

func (r Rule) targetSize() int {
	if r.track {
		return dnatSize
	}
	return standardSize
}

func (r Rule) matches() bool { return r.Ports != nil || r.Flags != nil }

// encode writes the chains one after the other, each with a last rule that is for all packets. One that has a name begins
// with an entry of the target ERROR, which tells it; another ends the table.
func (t Table) encode() encoded {
	var made encoded
	starts := t.offsets()
	for at, chain := range t.all() {
		if at >= len(t.Hooks) {
			made.append(errorEntry(chain.Name))
		} else {
			hook := t.Hooks[at]
			made.hooks |= 1 << hook
			made.starts[hook] = uint32(len(made.entries))
		}
		for _, rule := range chain.Rules {
			verdict := int32(rule.Verdict)
			if rule.Jump != "" {
				verdict = starts[rule.Jump]
			}
			made.append(rule.encode(verdict))
		}
		if at < len(t.Hooks) {
			made.underflow[t.Hooks[at]] = uint32(len(made.entries))
		}
		made.append(Rule{}.encode(int32(chain.End)))
	}
	made.append(errorEntry("ERROR"))
	return made
}

func (e *encoded) append(entry []byte) {
	e.entries = append(e.entries, entry...)
	e.count++
}

// offsets are where the first rule of each chain with a name is.
func (t Table) offsets() map[string]int32 {
	starts := map[string]int32{}
	at := 0
	for i, chain := range t.all() {
		if i >= len(t.Hooks) {
			at += entrySize + errorSize
			starts[chain.Name] = int32(at)
		}
		for _, rule := range append(chain.Rules[:len(chain.Rules):len(chain.Rules)], Rule{}) {
			at += rule.size()
		}
	}
	return starts
}

// encode writes struct ipt_entry, the match, the standard target.
func (r Rule) encode(verdict int32) []byte {
	entry := make([]byte, r.size())
	target := entrySize
	putPrefix(entry[0:], entry[8:], r.Source)
	putPrefix(entry[4:], entry[12:], r.Destination)
	native.PutUint16(entry[80:], uint16(r.Protocol))
	if r.matches() {
		target += matchSize
		r.putMatch(entry[entrySize:target])
	}
	native.PutUint16(entry[88:], uint16(target))
	native.PutUint16(entry[90:], uint16(len(entry)))
	native.PutUint16(entry[target:], uint16(r.targetSize()))
	if r.track {
		copy(entry[target+2:], "DNAT")
		native.PutUint32(entry[target+32:], 1) // range, to which it translates nothing
		return entry
	}
	native.PutUint32(entry[target+32:], uint32(verdict)) // a standard target's name is ""
	return entry
}

// putMatch writes struct xt_tcp or xt_udp, whose ports begin alike, behind its header.
func (r Rule) putMatch(match []byte) {
	native.PutUint16(match, matchSize)
	name := "tcp"
	if r.Protocol == unix.IPPROTO_UDP {
		name = "udp"
	}
	copy(match[2:], name)
	body := match[32:]
	ports := Ports{0, 0xffff}
	if r.Ports != nil {
		ports = *r.Ports
	}
	native.PutUint16(body[2:], 0xffff) // source: from 0 to this
	native.PutUint16(body[4:], ports.First)
	native.PutUint16(body[6:], ports.Last)
	if r.Flags != nil {
		body[9], body[10] = r.Flags.Mask, r.Flags.Set
	}
}

func errorEntry(name string) []byte {
	entry := make([]byte, entrySize+errorSize)
	native.PutUint16(entry[88:], entrySize)
	native.PutUint16(entry[90:], entrySize+errorSize)
	native.PutUint16(entry[entrySize:], errorSize)
	copy(entry[entrySize+2:], "ERROR")
	copy(entry[entrySize+32:], name)
	return entry
}

var native = binary.NativeEndian

// putPrefix writes an address and its mask; nothing for none.
func putPrefix(address, mask []byte, prefix netip.Prefix) {
	if !prefix.IsValid() {
		return
	}
	bytes := prefix.Masked().Addr().As4()
	copy(address, bytes[:])
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-prefix.Bits()))
}
