package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const fieldsHint = "The fields are in /api/v1/openapi.json."

// readJSON reads one JSON object of known fields. The body is in memory: see bounded.
func readJSON(r *http.Request, into any) error {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest("the body ended early: "+err.Error(), "Send one JSON object.")
	}
	if !utf8.Valid(text) { // the decoder would put U+FFFD there, and a range would end elsewhere than it was meant to
		return badRequest("the body is not UTF-8", "Encode it in UTF-8, as JSON is.")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err = d.Decode(into); err == nil {
		if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
			return badRequest("the body is null, not a JSON object", fieldsHint)
		}
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return badRequest("there is more in the body after the JSON object", "Send exactly one object.")
		}
		return nil
	}
	var wrongType *json.UnmarshalTypeError
	var wrongTime *time.ParseError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return badRequest("the body is "+wrongType.Value+", not a JSON object", fieldsHint)
	case errors.As(err, &wrongType):
		return badRequest(fmt.Sprintf("field %s must be %s, not %s", fieldName(wrongType.Field), kindInJSON(wrongType.Type), wrongType.Value), fieldsHint)
	case errors.As(err, &wrongTime), strings.HasPrefix(err.Error(), "Time.UnmarshalJSON"):
		return badRequest(fmt.Sprintf("field %s must be a time, as 2030-01-31T12:00:00Z", strings.Join(timeFields(reflect.TypeOf(into).Elem()), " or ")), fieldsHint)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return badRequest("unknown field "+strings.TrimPrefix(err.Error(), "json: unknown field "), fieldsHint)
	case errors.Is(err, io.EOF):
		return badRequest("the body is empty", "Send one JSON object.")
	}
	return badRequest("the body is not JSON: "+err.Error(), fieldsHint)
}

// fieldName is the name in JSON of a field that may be an embedded struct's.
func fieldName(path string) string {
	for _, embedded := range []string{"KeyspaceSpec.", "TablesSpec.", "Origin."} {
		path = strings.TrimPrefix(path, embedded)
	}
	return path
}

// kindInJSON is what a field of a type is called by people who write JSON.
func kindInJSON(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Pointer:
		return kindInJSON(t.Elem())
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// jsonName is what a struct's field is called in JSON; "": it is not there.
func jsonName(f *reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return strings.TrimPrefix(name, "-")
}

// timeFields are those of a body that are times: a decoder does not say which one it was.
func timeFields(t reflect.Type) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		if name := jsonName(&f); name != "" && f.Type == reflect.TypeFor[time.Time]() {
			names = append(names, name)
		}
	}
	return names
}

// missing are those of a body's fields that it needs and that are not there, or empty.
func missing(body reflect.Value, needs []string) (names []string) {
	for _, f := range reflect.VisibleFields(body.Type()) {
		name := jsonName(&f)
		if !slices.Contains(needs, name) {
			continue
		}
		if v := body.FieldByIndex(f.Index); v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
			names = append(names, name)
		}
	}
	return names
}

type bodyKey struct{}

// bodyOf is a call's body, of the type that its operation has. It was read before the call is handled: see checked.
func bodyOf[B any](r *http.Request) B { return *r.Context().Value(bodyKey{}).(*B) }

// checked reads a call's body, and refuses one that lacks what it needs, before anybody looks at what it says.
func (o *operation) checked() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := o.read(r)
		if err != nil {
			fail(w, err)
			return
		}
		o.handle(w, r.WithContext(context.WithValue(r.Context(), bodyKey{}, body)))
	}
}

// read is a pointer to the body; nil: the call has none.
func (o *operation) read(r *http.Request) (any, error) {
	if lacking := o.unasked(r.URL.Query()); len(lacking) > 0 {
		return nil, lacks(lacking, "parameters")
	}
	if o.body == nil {
		return nil, nil
	}
	body := reflect.New(reflect.TypeOf(o.body))
	if err := readJSON(r, body.Interface()); err != nil {
		return nil, err
	}
	if lacking := missing(body.Elem(), o.needs); len(lacking) > 0 {
		return nil, lacks(lacking, "fields")
	}
	return body.Interface(), nil
}

// unasked are the parameters that a call needs and does not have.
func (o *operation) unasked(query url.Values) (names []string) {
	for _, p := range o.params {
		if p.required && query.Get(p.name) == "" {
			names = append(names, p.name)
		}
	}
	return names
}

func lacks(names []string, what string) *apiError {
	text, is := names[0], "is"
	if last := len(names) - 1; last > 0 {
		text, is = strings.Join(names[:last], ", ")+" and "+names[last], "are"
	}
	return badRequest(fmt.Sprintf("%s %s missing", text, is), "The "+what+" of each call are in /api/v1/openapi.json.")
}
