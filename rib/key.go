package rib

import "bytes"

// Key is a row's sharding key (or, under the hash method, its position) as order-preserving bytes.
type Key []byte

// Compare orders keys as their method orders rows: byte by byte, a prefix first.
func (k Key) Compare(o Key) int { return bytes.Compare(k, o) }
