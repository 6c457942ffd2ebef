package rib

// Key is a row's sharding key (or, under the hash method, its position) as order-preserving bytes.
type Key []byte
