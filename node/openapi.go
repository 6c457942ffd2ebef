package node

import (
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object.
type object = map[string]any

// openAPI serves the document, made of the same table that the calls are served by, and of the types that they answer with.
func (a *api) openAPI(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, document(a.operations()))
}

// everyCall are the statuses that any call may be refused with.
func everyCall(o *operation) []int {
	list := []int{401, 403}
	if o.method != http.MethodGet {
		list = append(list, 413, 415)
	}
	return list
}

// document is the OpenAPI 3.1 document of the calls.
func document(operations []operation) object {
	s := schemas{made: object{}}
	failure := s.of(reflect.TypeFor[ErrorView](), false)
	paths := object{}
	for i := range operations {
		o := &operations[i]
		if o.inside {
			continue
		}
		said := object{
			"summary":     o.summary,
			"operationId": operationID(o),
			"responses":   object{strconv.Itoa(o.status): s.response("Done.", reflect.TypeOf(o.answer))},
		}
		answers := said["responses"].(object)
		if o.later != "" {
			answers[strconv.Itoa(http.StatusAccepted)] = s.response(o.later, reflect.TypeOf(o.answer))
		}
		for _, status := range slices.Concat(o.failures, everyCall(o)) {
			answers[strconv.Itoa(status)] = object{"description": http.StatusText(status), "content": object{"application/json": object{"schema": failure}}}
		}
		if o.method != http.MethodGet {
			said["parameters"] = append(s.parameters(o), object{
				"name": requestIDHeader, "in": "header", "schema": object{"type": "string", "maxLength": 128},
				"description": "Repeated with the same id, a call is carried out once. One is made if it is absent; every answer has it.",
			})
		} else if list := s.parameters(o); len(list) > 0 {
			said["parameters"] = list
		}
		if o.body != nil {
			said["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": s.body(o)}}}
		}
		at, _ := paths[o.path].(object)
		if at == nil {
			at = object{}
			paths[o.path] = at
		}
		at[strings.ToLower(o.method)] = said
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Rangefinder", "version": Version(),
			"description": "Any node takes a call; what changes ownership is passed on to the one that leads. Times are in milliseconds where a name ends in ms, else as RFC 3339 has them. What is here about keyspaces, ranges and moves the command line does too, and SQL on the admin database rangefinder (SHOW HELP).",
		},
		"paths": paths,
		"components": object{
			"schemas":         s.made,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}, "certificate": object{"type": "mutualTLS"}},
		},
		// Either; or neither, on loopback, where the configuration asks for none.
		"security": []any{object{"token": []any{}}, object{"certificate": []any{}}, object{}},
	}
}

var notWord = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// operationID is a name for generated clients: post_moves_id_abort.
func operationID(o *operation) string {
	path := strings.TrimPrefix(o.path, "/api/v1/")
	return strings.ToLower(o.method) + "_" + strings.Trim(notWord.ReplaceAllString(path, "_"), "_")
}

// schemas makes a schema of each type once.
type schemas struct{ made object }

func (s *schemas) response(about string, t reflect.Type) object {
	return object{"description": about, "content": object{"application/json": object{"schema": s.of(t, false)}}}
}

func (s *schemas) parameters(o *operation) (list []any) {
	for _, p := range o.params {
		in, kind := "query", "string"
		if p.path {
			in = "path"
		}
		if p.number {
			kind = "integer"
		}
		list = append(list, object{"name": p.name, "in": in, "required": p.path || p.required, "description": p.about, "schema": object{"type": kind}})
	}
	return list
}

// body is the schema of what a call takes.
func (s *schemas) body(o *operation) object {
	t := reflect.TypeOf(o.body)
	if t.Name() == "" {
		return object{"type": "object", "additionalProperties": false}
	}
	ref := s.of(t, true)
	if len(o.needs) > 0 {
		s.made[t.Name()].(object)["required"] = o.needs
	}
	return ref
}

// of is the schema of a type, by reference if it is a struct with a name. taken: it is what a caller sends, who may leave fields out.
func (s *schemas) of(t reflect.Type, taken bool) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return object{"anyOf": []any{s.of(t.Elem(), taken), object{"type": "null"}}}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8: // json.RawMessage
		return object{}
	case t.Kind() == reflect.Slice:
		return object{"type": []any{"array", "null"}, "items": s.of(t.Elem(), taken)}
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Interface:
		return object{"type": "object"}
	case t.Kind() == reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem(), taken)}
	case t.Kind() == reflect.String:
		return object{"type": "string"}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return object{"type": "number"}
	case t.Kind() == reflect.Struct:
		name := t.Name()
		if _, ok := s.made[name]; !ok {
			one := object{"type": "object", "additionalProperties": false}
			s.made[name] = one // before its fields: one of them may be of this type
			properties, required := object{}, []string{}
			s.fields(t, taken, properties, &required)
			one["properties"] = properties
			if len(required) > 0 && !taken {
				one["required"] = required
			}
		}
		return object{"$ref": "#/components/schemas/" + name}
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return object{"type": "integer"}
	}
	return object{}
}

// fields adds a struct's fields, those of embedded structs among them.
func (s *schemas) fields(t reflect.Type, taken bool, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			s.fields(f.Type, taken, properties, required)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		property := s.of(f.Type, taken)
		if about := f.Tag.Get("doc"); about != "" {
			property["description"] = about
		}
		properties[name] = property
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			*required = append(*required, name)
		}
	}
}
