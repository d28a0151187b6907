package policy

import (
	"net/netip"
	"slices"
)

// set is addresses of both families: ranges in their order, none of which touches the next.
type set []interval

// interval is from first to last, of one family.
type interval struct{ first, last netip.Addr }

// setOf is the addresses of prefixes.
func setOf(prefixes ...netip.Prefix) set {
	var made set
	for _, each := range prefixes {
		made = made.with(set{intervalOf(each)})
	}
	return made
}

func intervalOf(prefix netip.Prefix) interval {
	first := prefix.Masked().Addr()
	bytes := first.AsSlice()
	for at := range bytes {
		if own := max(0, min(8, prefix.Bits()-8*at)); own < 8 {
			bytes[at] |= 0xff >> own
		}
	}
	last, _ := netip.AddrFromSlice(bytes)
	return interval{first, last}
}

// with is both.
func (s set) with(others set) set {
	all := slices.Concat(s, others)
	slices.SortFunc(all, func(a, b interval) int { return a.first.Compare(b.first) })
	var made set
	for _, each := range all {
		if at := len(made) - 1; at >= 0 && made[at].touches(each) {
			if made[at].last.Less(each.last) {
				made[at].last = each.last
			}
			continue
		}
		made = append(made, each)
	}
	return made
}

// touches says whether one that does not begin before this one is of a piece with it.
func (i interval) touches(next interval) bool {
	return i.first.BitLen() == next.first.BitLen() && (!i.last.Less(next.first) || i.last.Next() == next.first)
}

// without leaves out the addresses of a prefix.
func (s set) without(prefix netip.Prefix) set {
	hole := intervalOf(prefix)
	var made set
	for _, each := range s {
		if each.last.Less(hole.first) || hole.last.Less(each.first) {
			made = append(made, each)
			continue
		}
		if each.first.Less(hole.first) {
			made = append(made, interval{each.first, hole.first.Prev()})
		}
		if hole.last.Less(each.last) {
			made = append(made, interval{hole.last.Next(), each.last})
		}
	}
	return made
}

func (s set) has(address netip.Addr) bool {
	return slices.ContainsFunc(s, func(each interval) bool { return !address.Less(each.first) && !each.last.Less(address) })
}

// of is what there is of a family.
func (s set) of(second bool) set {
	return slices.DeleteFunc(slices.Clone(s), func(each interval) bool { return each.first.Is6() != second })
}

// prefixes are the fewest that have these addresses and no others.
func (s set) prefixes() []netip.Prefix {
	var made []netip.Prefix
	for _, each := range s {
		for at := each.first; at.IsValid() && !each.last.Less(at); {
			one := largest(at, each.last)
			made = append(made, one)
			at = intervalOf(one).last.Next()
		}
	}
	return made
}

// largest is the largest prefix that begins at an address and ends before another, or with it.
func largest(first, last netip.Addr) netip.Prefix {
	for bits := range first.BitLen() {
		one := netip.PrefixFrom(first, bits)
		if one.Masked() == one && !last.Less(intervalOf(one).last) {
			return one
		}
	}
	return alone(first)
}
