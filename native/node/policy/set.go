package policy

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// set is IPv4 addresses: ranges of numbers in their order, none of which touches the next. Numbers have room for the end of the
// last.
type set []interval

// interval is from first to before end.
type interval struct{ first, end uint64 }

// setOf is the addresses of prefixes.
func setOf(prefixes ...netip.Prefix) set {
	var made set
	for _, each := range prefixes {
		made = made.with(set{intervalOf(each)})
	}
	return made
}

func intervalOf(prefix netip.Prefix) interval {
	first := number(prefix.Masked().Addr())
	return interval{first, first + 1<<(32-prefix.Bits())}
}

func number(address netip.Addr) uint64 {
	text := address.As4()
	return uint64(binary.BigEndian.Uint32(text[:]))
}

// with is both.
func (s set) with(others set) set {
	all := slices.Concat(s, others)
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	var made set
	for _, each := range all {
		if last := len(made) - 1; last >= 0 && each.first <= made[last].end {
			made[last].end = max(made[last].end, each.end)
			continue
		}
		made = append(made, each)
	}
	return made
}

// without leaves out the addresses of a prefix.
func (s set) without(prefix netip.Prefix) set {
	hole := intervalOf(prefix)
	var made set
	for _, each := range s {
		for _, part := range []interval{{each.first, min(each.end, hole.first)}, {max(each.first, hole.end), each.end}} {
			if part.first < part.end {
				made = append(made, part)
			}
		}
	}
	return made
}

func (s set) has(address netip.Addr) bool {
	if !address.Is4() {
		return false
	}
	wanted := number(address)
	return slices.ContainsFunc(s, func(each interval) bool { return each.first <= wanted && wanted < each.end })
}

// prefixes are the fewest that have these addresses and no others.
func (s set) prefixes() []netip.Prefix {
	var made []netip.Prefix
	for _, each := range s {
		for at := each.first; at < each.end; {
			free := min(bits.TrailingZeros64(at), bits.Len64(each.end-at)-1, 32)
			var text [4]byte
			binary.BigEndian.PutUint32(text[:], uint32(at))
			made = append(made, netip.PrefixFrom(netip.AddrFrom4(text), 32-free))
			at += 1 << free
		}
	}
	return made
}
