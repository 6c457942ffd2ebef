package sqlkey

import (
	"slices"
	"strconv"
	"unsafe"
)

// piece is a part of a statement's text, and the parameter that follows it; 0: none does.
type piece struct {
	text  string
	param int
}

// Part makes the statement that inserts some of the rows, by their numbers from 0. Its parameters are numbered anew, for one that it
// lacks would have no type: params are the client's numbers of $1, $2, ...
func (s *Split) Part(rows []int) (sql string, params []int) {
	var out []byte
	write := func(list []piece) {
		for _, p := range list {
			out = append(out, p.text...)
			if p.param == 0 {
				continue
			}
			i := slices.Index(params, p.param)
			if i < 0 {
				i = len(params)
				params = append(params, p.param)
			}
			out = strconv.AppendInt(append(out, '$'), int64(i+1), 10)
		}
	}
	write(s.head)
	for i, row := range rows {
		if i > 0 {
			out = append(out, ", "...)
		}
		write(s.rows[row])
	}
	write(s.tail)
	return string(out), params
}

func (s *Split) bytes() (n int) {
	for _, list := range append([][]piece{s.head, s.tail}, s.rows...) {
		for i := range list {
			n += int(unsafe.Sizeof(list[i])) + len(list[i].text)
		}
	}
	return n + int(unsafe.Sizeof(*s))
}
