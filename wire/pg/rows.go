package pg

import "encoding/binary"

// The types of the columns that the node itself answers with.
const (
	OIDBigint uint32 = 20
	OIDText   uint32 = 25
)

// Field is one column of a RowDescription: one that belongs to no table.
type Field struct {
	Name   string
	OID    uint32
	Size   int16 // of the type in bytes, -1 if it varies
	Format int16 // FormatText or FormatBinary
}

// AppendRowDescription appends a RowDescription frame. There may be at most 32767 fields.
func AppendRowDescription(dst []byte, fields []Field) []byte {
	dst, start := begin(dst, TypeRowDescription)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(fields)))
	for _, f := range fields {
		dst = cstring(dst, f.Name)
		dst = append(dst, 0, 0, 0, 0, 0, 0) // no table, no column of one
		dst = binary.BigEndian.AppendUint32(dst, f.OID)
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.Size))
		dst = append(dst, 0xff, 0xff, 0xff, 0xff) // no modifier
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.Format))
	}
	return finish(dst, start)
}

// AppendDataRow appends a DataRow frame; a nil value is NULL. There may be at most 32767 values.
func AppendDataRow(dst []byte, values [][]byte) []byte {
	dst, start := begin(dst, TypeDataRow)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return finish(dst, start)
}

// DecodeDataRow is the values of a DataRow's body, which they alias; nil is NULL.
func DecodeDataRow(body []byte) ([][]byte, error) {
	r := reader{rest: body}
	count := int(r.uint16())
	if 4*count > len(r.rest) { // before room is made for what a count merely claims
		r.fail("insufficient data left in message")
		return nil, r.err
	}
	values := make([][]byte, 0, count)
	for range count {
		var v []byte
		if n := int32(r.uint32()); n != -1 {
			v = r.take(int64(n)) // any other negative length is refused
		}
		values = append(values, v)
	}
	return values, r.end()
}

// AppendNoParameters appends a ParameterDescription frame of a statement without parameters.
func AppendNoParameters(dst []byte) []byte {
	return append(dst, TypeParameterDescription, 0, 0, 0, 6, 0, 0)
}

// DecodeParameterDescription is the types that a ParameterDescription's body names.
func DecodeParameterDescription(body []byte) ([]uint32, error) {
	r := reader{rest: body}
	count := int(r.uint16())
	if 4*count > len(r.rest) {
		r.fail("insufficient data left in message")
		return nil, r.err
	}
	oids := make([]uint32, count)
	for i := range oids {
		oids[i] = r.uint32()
	}
	return oids, r.end()
}

// AppendPortalSuspended appends a PortalSuspended frame.
func AppendPortalSuspended(dst []byte) []byte { return empty(dst, TypePortalSuspended) }
