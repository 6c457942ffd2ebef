package pg

import (
	"encoding/binary"
)

// Types of the messages a client sends.
const (
	TypeBind      byte = 'B'
	TypeClose     byte = 'C'
	TypeCopyData  byte = 'd' // both ways
	TypeCopyDone  byte = 'c' // both ways
	TypeCopyFail  byte = 'f'
	TypeDescribe  byte = 'D'
	TypeExecute   byte = 'E'
	TypeFlush     byte = 'H'
	TypeFunction  byte = 'F'
	TypeParse     byte = 'P'
	TypePassword  byte = 'p' // and SASL's responses
	TypeQuery     byte = 'Q'
	TypeSync      byte = 'S'
	TypeTerminate byte = 'X'
)

// Types of the messages a server sends.
const (
	TypeAuthentication       byte = 'R'
	TypeBackendKeyData       byte = 'K'
	TypeBindComplete         byte = '2'
	TypeCloseComplete        byte = '3'
	TypeCommandComplete      byte = 'C'
	TypeCopyBothResponse     byte = 'W'
	TypeCopyInResponse       byte = 'G'
	TypeCopyOutResponse      byte = 'H'
	TypeDataRow              byte = 'D'
	TypeEmptyQuery           byte = 'I'
	TypeErrorResponse        byte = 'E'
	TypeFunctionResponse     byte = 'V'
	TypeNegotiateVersion     byte = 'v'
	TypeNoData               byte = 'n'
	TypeNoticeResponse       byte = 'N'
	TypeNotification         byte = 'A'
	TypeParameterDescription byte = 't'
	TypeParameterStatus      byte = 'S'
	TypeParseComplete        byte = '1'
	TypePortalSuspended      byte = 's'
	TypeReadyForQuery        byte = 'Z'
	TypeRowDescription       byte = 'T'
)

// What ReadyForQuery says of the transaction.
const (
	StatusIdle   byte = 'I'
	StatusInTx   byte = 'T'
	StatusFailed byte = 'E'
)

// Kinds of what Describe and Close name.
const (
	KindStatement byte = 'S'
	KindPortal    byte = 'P'
)

// Texts that are appended below must not hold a NUL: it would end them early.

// AppendReady appends a ReadyForQuery frame.
func AppendReady(dst []byte, status byte) []byte {
	return append(dst, TypeReadyForQuery, 0, 0, 0, 5, status)
}

// AppendCommandComplete appends a CommandComplete frame with a tag such as "BEGIN".
func AppendCommandComplete(dst []byte, tag string) []byte {
	dst, start := begin(dst, TypeCommandComplete)
	return finish(cstring(dst, tag), start)
}

// AppendParameterStatus appends a ParameterStatus frame.
func AppendParameterStatus(dst []byte, key, value string) []byte {
	dst, start := begin(dst, TypeParameterStatus)
	return finish(cstring(cstring(dst, key), value), start)
}

// AppendBackendKeyData appends a BackendKeyData frame. The secret is 4 bytes in protocol 3.0, up to MaxSecret in 3.2.
func AppendBackendKeyData(dst []byte, pid uint32, secret []byte) []byte {
	dst, start := begin(dst, TypeBackendKeyData)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return finish(append(dst, secret...), start)
}

// AppendNotification appends a NotificationResponse frame.
func AppendNotification(dst []byte, pid uint32, channel, payload string) []byte {
	dst, start := begin(dst, TypeNotification)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return finish(cstring(cstring(dst, channel), payload), start)
}

// AppendNoData appends a NoData frame.
func AppendNoData(dst []byte) []byte { return empty(dst, TypeNoData) }

// AppendParseComplete appends a ParseComplete frame.
func AppendParseComplete(dst []byte) []byte { return empty(dst, TypeParseComplete) }

// AppendBindComplete appends a BindComplete frame.
func AppendBindComplete(dst []byte) []byte { return empty(dst, TypeBindComplete) }

// AppendCloseComplete appends a CloseComplete frame.
func AppendCloseComplete(dst []byte) []byte { return empty(dst, TypeCloseComplete) }

// AppendEmptyQuery appends an EmptyQueryResponse frame.
func AppendEmptyQuery(dst []byte) []byte { return empty(dst, TypeEmptyQuery) }

// AppendSync appends a Sync frame.
func AppendSync(dst []byte) []byte { return empty(dst, TypeSync) }

// AppendFlush appends a Flush frame.
func AppendFlush(dst []byte) []byte { return empty(dst, TypeFlush) }

// AppendCopyDone appends a CopyDone frame.
func AppendCopyDone(dst []byte) []byte { return empty(dst, TypeCopyDone) }

// AppendCopyFail appends a CopyFail frame.
func AppendCopyFail(dst []byte, text string) []byte {
	dst, start := begin(dst, TypeCopyFail)
	return finish(cstring(dst, text), start)
}

// AppendTerminate appends a Terminate frame.
func AppendTerminate(dst []byte) []byte { return empty(dst, TypeTerminate) }

// AppendQuery appends a simple Query frame.
func AppendQuery(dst []byte, sql string) []byte {
	dst, start := begin(dst, TypeQuery)
	return finish(cstring(dst, sql), start)
}

// AppendParse appends a Parse frame. There may be at most 65535 OIDs.
func AppendParse(dst []byte, name, sql string, oids []uint32) []byte {
	dst, start := begin(dst, TypeParse)
	dst = cstring(cstring(dst, name), sql)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(oids)))
	for _, oid := range oids {
		dst = binary.BigEndian.AppendUint32(dst, oid)
	}
	return finish(dst, start)
}

// AppendDescribe appends a Describe frame of a statement or portal (KindStatement, KindPortal).
func AppendDescribe(dst []byte, kind byte, name string) []byte {
	dst, start := begin(dst, TypeDescribe)
	return finish(cstring(append(dst, kind), name), start)
}

// AppendClose appends a Close frame of a statement or portal (KindStatement, KindPortal).
func AppendClose(dst []byte, kind byte, name string) []byte {
	dst, start := begin(dst, TypeClose)
	return finish(cstring(append(dst, kind), name), start)
}

// AppendExecute appends an Execute frame; maxRows 0 means all rows.
func AppendExecute(dst []byte, portal string, maxRows uint32) []byte {
	dst, start := begin(dst, TypeExecute)
	dst = cstring(dst, portal)
	return finish(binary.BigEndian.AppendUint32(dst, maxRows), start)
}

func empty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }
