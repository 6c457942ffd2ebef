package sqlkey

import (
	"reflect"
	"sync"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// walk calls visit for node and for every node below it, in the order of the fields, down to where visit returns false.
// visit gets pointers to pg_query's structs (*pgquery.FuncCall, ...); *pgquery.Node, which only wraps them, among them.
//
// It knows the node types from their definitions, so no corner of a statement can be forgotten, also not one that a later
// parser adds.
func walk(node proto.Message, visit func(node any) bool) {
	v := reflect.ValueOf(node)
	if v.IsNil() {
		return
	}
	if s := shapes()[v.Type().Elem()]; s != nil {
		s.walk(v, visit)
	}
}

// walkList is walk for a list of nodes.
func walkList(nodes []*pgquery.Node, visit func(node any) bool) {
	for _, n := range nodes {
		walk(n, visit)
	}
}

// shape tells which fields of a node type hold nodes.
type shape struct {
	fields []field
}

type field struct {
	index int
	many  bool                    // a slice of nodes
	elem  *shape                  // the nodes' type; nil for a oneof
	oneof map[reflect.Type]*shape // the possible nodes, by the type that wraps each
}

func (s *shape) walk(v reflect.Value, visit func(any) bool) {
	if !visit(v.Interface()) {
		return
	}
	v = v.Elem()
	for i := range s.fields {
		f := &s.fields[i]
		x := v.Field(f.index)
		switch {
		case f.many:
			for j := range x.Len() {
				if e := x.Index(j); !e.IsNil() {
					f.elem.walk(e, visit)
				}
			}
		case x.IsNil():
		case f.oneof != nil:
			x = x.Elem() // the pointer to the wrapper
			if elem := f.oneof[x.Type()]; elem != nil {
				if e := x.Elem().Field(0); !e.IsNil() {
					elem.walk(e, visit)
				}
			}
		default:
			f.elem.walk(x, visit)
		}
	}
}

// shapes has every node type that a statement can hold, by its struct. It never changes once made.
var shapes = sync.OnceValue(func() map[reflect.Type]*shape {
	b := shaper{}
	b.shape(reflect.TypeFor[pgquery.ParseResult]())
	return b
})

type shaper map[reflect.Type]*shape

var messageType = reflect.TypeFor[proto.Message]()

// shape makes the shape of a struct type and of all that it can hold. Types hold one another, so a shape is known before
// it is complete.
func (b shaper) shape(t reflect.Type) *shape {
	if s := b[t]; s != nil {
		return s
	}
	s := &shape{}
	b[t] = s
	for i := range t.NumField() {
		sf := t.Field(i)
		if !sf.IsExported() {
			continue
		}
		switch ft := sf.Type; {
		case ft.Kind() == reflect.Pointer && ft.Implements(messageType):
			s.fields = append(s.fields, field{index: i, elem: b.shape(ft.Elem())})
		case ft.Kind() == reflect.Slice && ft.Elem().Implements(messageType):
			s.fields = append(s.fields, field{index: i, many: true, elem: b.shape(ft.Elem().Elem())})
		case ft.Kind() == reflect.Interface:
			s.fields = append(s.fields, field{index: i, oneof: b.oneof(t, i)})
		}
	}
	return s
}

// oneof finds what may stand in field i of t, by putting each of it there once.
func (b shaper) oneof(t reflect.Type, i int) map[reflect.Type]*shape {
	found := make(map[reflect.Type]*shape)
	v := reflect.New(t)
	m := v.Interface().(proto.Message).ProtoReflect()
	all := m.Descriptor().Fields()
	for j := range all.Len() {
		fd := all.Get(j)
		if fd.ContainingOneof() == nil || fd.Kind() != protoreflect.MessageKind {
			continue
		}
		m.Set(fd, m.NewField(fd))
		if w := v.Elem().Field(i); !w.IsNil() {
			found[w.Elem().Type()] = b.shape(w.Elem().Type().Elem().Field(0).Type.Elem())
		}
	}
	return found
}
