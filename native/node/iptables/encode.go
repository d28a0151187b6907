package iptables

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes of the kernel's structures on x86-64; those that are matches and targets are multiples of eight.
const (
	nameSize     = 29 // XT_FUNCTION_MAXNAMELEN, less the revision
	matchSize    = 48 // struct xt_entry_match with xt_tcp or xt_udp
	everySize    = 56 // struct xt_entry_match with xt_statistic_info
	standardSize = 40 // struct xt_standard_target
	errorSize    = 64 // struct xt_error_target
)

// layout is how the kernel has the rules of a family: where fields of struct ipt_entry are, or of struct ip6t_entry, and by
// which socket tables are told.
type layout struct {
	entry     int // its size
	address   int // the size of one; those of source and destination come first, then their masks
	protocol  int
	flags     int // of IPv6 only, with one that says that the protocol counts
	target    int // offset of the target, then that of the next entry
	counted   int // from here to the end is the kernel's own
	translate int // size of struct xt_entry_target with what DNAT has
	revision  byte
	addresses int // where the first and the last address of what DNAT has are in it; their ports come last
	domain    int
	level     int
	nobody    netip.Prefix // an address that no packet is from
}

var (
	four = layout{
		entry: 112, address: 4, protocol: 80, target: 88, counted: 92,
		translate: 56, addresses: 40, // nf_nat_ipv4_multi_range_compat
		domain: unix.AF_INET, level: unix.SOL_IP, nobody: netip.MustParsePrefix("255.255.255.255/32"),
	}
	six = layout{
		entry: 168, address: 16, protocol: 128, flags: 131, target: 140, counted: 144,
		translate: 72, addresses: 36, revision: 1, // nf_nat_range
		domain: unix.AF_INET6, level: unix.SOL_IPV6, nobody: netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
	}
)

func (t Table) layout() layout {
	if t.IPv6 {
		return six
	}
	return four
}

// encoded is a table as the kernel has it.
type encoded struct {
	entries   []byte
	count     uint32
	hooks     uint32
	starts    [hooks]uint32
	underflow [hooks]uint32
}

func (r Rule) size(as layout) int {
	return as.entry + r.matchesSize() + r.targetSize(as)
}

func (r Rule) matchesSize() int {
	size := 0
	if r.matches() {
		size += matchSize
	}
	if r.Every > 1 {
		size += everySize
	}
	return size
}

func (r Rule) targetSize(as layout) int {
	if r.translates() {
		return as.translate
	}
	return standardSize
}

func (r Rule) translates() bool { return r.track || r.To.IsValid() }

func (r Rule) matches() bool { return r.Ports != nil || r.Flags != nil }

// encode writes the chains one after the other, each with a last rule that is for all packets. One that has a name begins
// with an entry of the target ERROR, which tells it; another ends the table.
func (t Table) encode() encoded {
	var made encoded
	starts, as := t.offsets(), t.layout()
	for at, chain := range t.all() {
		if at >= len(t.Hooks) {
			made.append(as.errorEntry(chain.Name))
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
			made.append(rule.encode(as, verdict))
		}
		if at < len(t.Hooks) {
			made.underflow[t.Hooks[at]] = uint32(len(made.entries))
		}
		made.append(Rule{}.encode(as, int32(chain.End)))
	}
	made.append(as.errorEntry("ERROR"))
	return made
}

func (e *encoded) append(entry []byte) {
	e.entries = append(e.entries, entry...)
	e.count++
}

// offsets are where the first rule of each chain with a name is.
func (t Table) offsets() map[string]int32 {
	starts, as := map[string]int32{}, t.layout()
	at := 0
	for i, chain := range t.all() {
		if i >= len(t.Hooks) {
			at += as.entry + errorSize
			starts[chain.Name] = int32(at)
		}
		for _, rule := range append(chain.Rules[:len(chain.Rules):len(chain.Rules)], Rule{}) {
			at += rule.size(as)
		}
	}
	return starts
}

// encode writes struct ipt_entry or ip6t_entry, the match, the standard target.
func (r Rule) encode(as layout, verdict int32) []byte {
	entry := make([]byte, r.size(as))
	as.putPrefix(entry, 0, r.Source)
	as.putPrefix(entry, as.address, r.Destination)
	native.PutUint16(entry[as.protocol:], uint16(r.Protocol))
	if r.Protocol != 0 && as.flags != 0 {
		entry[as.flags] = 1 // IP6T_F_PROTO
	}
	if r.matches() {
		r.putMatch(entry[as.entry:])
	}
	target := as.entry + r.matchesSize()
	if r.Every > 1 {
		putEvery(entry[target-everySize:], r.Every)
	}
	as.putOffsets(entry, target)
	native.PutUint16(entry[target:], uint16(r.targetSize(as)))
	if r.translates() {
		as.putTranslation(entry[target:], r.To)
		return entry
	}
	native.PutUint32(entry[target+32:], uint32(verdict)) // a standard target's name is ""
	return entry
}

// putTranslation writes what DNAT has behind the target's size: ranges of one address and port, or nothing to translate to.
func (as layout) putTranslation(target []byte, to netip.AddrPort) {
	copy(target[2:], "DNAT")
	target[2+nameSize] = as.revision
	if as.revision == 0 {
		native.PutUint32(target[32:], 1) // range
	}
	if !to.IsValid() {
		return
	}
	native.PutUint32(target[as.addresses-4:], 1|2) // NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED
	for i := range 2 {
		copy(target[as.addresses+i*as.address:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(target[as.addresses+2*as.address+2*i:], to.Port())
	}
}

// putEvery writes struct xt_statistic_info behind its header: mode nth, whose count begins where the next packet fits.
func putEvery(match []byte, every uint32) {
	native.PutUint16(match, everySize)
	copy(match[2:], "statistic")
	body := match[32:]
	native.PutUint16(body, 1)
	native.PutUint32(body[4:], every-1)
	native.PutUint32(body[12:], every-1)
}

func (as layout) putOffsets(entry []byte, target int) {
	native.PutUint16(entry[as.target:], uint16(target))
	native.PutUint16(entry[as.target+2:], uint16(len(entry)))
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

func (as layout) errorEntry(name string) []byte {
	entry := make([]byte, as.entry+errorSize)
	as.putOffsets(entry, as.entry)
	target := entry[as.entry:]
	native.PutUint16(target, errorSize)
	copy(target[2:], "ERROR")
	copy(target[32:], name)
	return entry
}

var native = binary.NativeEndian

// putPrefix writes an address and its mask; nothing for none.
func (as layout) putPrefix(entry []byte, at int, prefix netip.Prefix) {
	if !prefix.IsValid() {
		return
	}
	copy(entry[at:], prefix.Masked().Addr().AsSlice())
	copy(entry[at+2*as.address:], net.CIDRMask(prefix.Bits(), 8*as.address))
}
