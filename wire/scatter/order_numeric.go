package scatter

import (
	"bytes"
	"cmp"
	"encoding/binary"
)

// numeric is a number of PostgreSQL's type numeric, as digits that are views of the value. Its order is: -Infinity, numbers, Infinity, NaN.
type numeric struct {
	class  int8   // -1, 0, 1, 2 in that order
	sign   int    // -1, 0, 1
	weight int    // of the first digit that is not 0: the larger, the larger the number
	digits []byte // from that one on, without zeros at the end, and without the point
}

func byNumeric(read func([]byte) (numeric, bool)) compare {
	return func(a, b []byte) int {
		x, ok := read(a)
		y, okay := read(b)
		if !ok || !okay {
			return bytes.Compare(a, b)
		}
		return x.compare(&y)
	}
}

func (x *numeric) compare(y *numeric) int {
	switch {
	case x.class != y.class:
		return cmp.Compare(x.class, y.class)
	case x.class != 0:
		return 0
	case x.sign != y.sign:
		return cmp.Compare(x.sign, y.sign)
	case x.sign == 0:
		return 0
	}
	c := cmp.Compare(x.weight, y.weight)
	if c == 0 {
		c = bytes.Compare(x.digits, y.digits)
	}
	return c * x.sign
}

// binaryNumeric reads the number of digits, the weight of the first one, the sign, the scale, and digits of base 10000.
func binaryNumeric(v []byte) (n numeric, ok bool) {
	if len(v) < 8 || len(v) != 8+2*int(binary.BigEndian.Uint16(v)) {
		return n, false
	}
	n.sign, n.weight, n.digits = 1, int(int16(binary.BigEndian.Uint16(v[2:]))), v[8:]
	switch binary.BigEndian.Uint16(v[4:]) {
	case 0x0000:
	case 0x4000:
		n.sign = -1
	case 0xC000:
		return numeric{class: 2}, true
	case 0xD000:
		return numeric{class: 1}, true
	case 0xF000:
		return numeric{class: -1}, true
	default:
		return n, false
	}
	for len(n.digits) > 0 && n.digits[0] == 0 && n.digits[1] == 0 {
		n.digits, n.weight = n.digits[2:], n.weight-1
	}
	for len(n.digits) > 0 && n.digits[len(n.digits)-1] == 0 && n.digits[len(n.digits)-2] == 0 {
		n.digits = n.digits[:len(n.digits)-2]
	}
	if len(n.digits) == 0 {
		n.sign = 0
	}
	return n, true
}

// textNumeric reads -123.4500, which needs no memory but for what stands on both sides of a point.
func textNumeric(v []byte) (n numeric, ok bool) {
	switch string(v) {
	case "NaN":
		return numeric{class: 2}, true
	case "Infinity":
		return numeric{class: 1}, true
	case "-Infinity":
		return numeric{class: -1}, true
	}
	n.sign = 1
	if len(v) > 0 && v[0] == '-' {
		n.sign, v = -1, v[1:]
	}
	point := bytes.IndexByte(v, '.')
	whole, part := v, []byte(nil)
	if point >= 0 {
		whole, part = v[:point], v[point+1:]
	}
	for _, list := range [2][]byte{whole, part} {
		for _, c := range list {
			if c < '0' || c > '9' {
				return n, false
			}
		}
	}
	if len(whole)+len(part) == 0 {
		return n, false
	}
	for len(whole) > 0 && whole[0] == '0' {
		whole = whole[1:]
	}
	part = bytes.TrimRight(part, "0")
	switch {
	case len(whole) > 0 && len(part) > 0:
		n.weight, n.digits = len(whole), append(append(make([]byte, 0, len(v)), whole...), part...)
	case len(whole) > 0:
		n.weight, n.digits = len(whole), bytes.TrimRight(whole, "0")
	default:
		n.digits = part
		for len(n.digits) > 0 && n.digits[0] == '0' {
			n.digits, n.weight = n.digits[1:], n.weight-1
		}
	}
	if len(n.digits) == 0 {
		n.sign, n.weight = 0, 0
	}
	return n, true
}
