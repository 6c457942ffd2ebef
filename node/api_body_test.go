package node

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
)

// TestBodiesThatAreWrong sends each call of the API what it cannot work with: nothing of what it needs, what it does not know, and each field as
// something else. The answer is 400 and names what is wrong, as the document allows, and nothing reaches the node.
func TestBodiesThatAreWrong(t *testing.T) {
	office := &fakeOffice{view: exampleView(), left: []DrainLeftView{{}}}
	a := newTestAPI(office)
	h := a.handler()
	c := newContract(t, ask(t, h, "GET", "/api/v1/openapi.json", "").Body.Bytes())
	untouched := *office
	refused := func(o *operation, body string, names ...string) {
		t.Helper()
		path := strings.Replace(o.path, "{id}", "7", 1)
		w := ask(t, h, o.method, path, body)
		var e ErrorView
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != 400 || e.Code != codeBadRequest || e.Hint == "" {
			t.Errorf("%s %s with %s: %d %s, want 400 and a hint", o.method, o.path, body, w.Code, w.Body)
		}
		for _, name := range names {
			if !strings.Contains(e.Error, name) {
				t.Errorf("%s %s with %s: %q does not name %s", o.method, o.path, body, e.Error, name)
			}
		}
		if strings.Contains(e.Error, "int64") || strings.Contains(e.Error, "[]") || strings.Contains(e.Error, "cluster.") {
			t.Errorf("%s %s with %s: %q speaks of Go's types", o.method, o.path, body, e.Error)
		}
		if err := c.answer(o.method, path, w.Code, w.Body.Bytes()); err != nil {
			t.Error(err)
		}
	}
	operations, bodies := a.operations(), 0
	for i := range operations {
		o := &operations[i]
		if o.inside {
			continue
		}
		if o.body == nil {
			var asked []string
			for _, p := range o.params {
				if p.required {
					asked = append(asked, p.name)
				}
			}
			if len(asked) > 0 {
				refused(o, "", asked...)
			}
			continue
		}
		bodies++
		if len(o.needs) > 0 {
			refused(o, `{}`, o.needs...)
		}
		example := map[string]any{}
		if err := json.Unmarshal([]byte(exampleCalls()[o.method+" "+strings.Replace(o.path, "{id}", "7", 1)]), &example); err != nil {
			t.Fatalf("%s %s has no example: %v", o.method, o.path, err)
		}
		with := func(name string, value any) string {
			changed := map[string]any{name: value}
			for k, v := range example {
				if k != name {
					changed[k] = v
				}
			}
			text, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		for _, body := range []string{``, ` `, `null`, `[]`, `"x"`, `7`, `{`, `{"a"`, `{} {}`, `nonsense`, `{}x`} {
			refused(o, body)
		}
		refused(o, with("nonsense", 1), "nonsense")
		refused(o, strings.Replace(with("reason", "r"), `"r"`, "\"a\xff\"", 1), "UTF-8") // a decoder puts another character there, without a word
		for _, name := range o.needs {
			for _, empty := range []any{nil, "", []string{}} {
				if value, ok := example[name]; ok && empty != nil && reflect.TypeOf(value).Kind() != reflect.TypeOf(empty).Kind() {
					continue
				}
				refused(o, with(name, empty), name)
			}
		}
		for name, kind := range bodyFields(reflect.TypeOf(o.body)) {
			for what, value := range map[string]any{"text": "x", "number": 7, "fraction": 1.5, "list": []any{[]any{}}, "object": map[string]any{"x": 1}, "bool": true} {
				if !slices.Contains(fitting(kind), what) {
					refused(o, with(name, value), name)
				}
			}
		}
	}
	if bodies < 10 {
		t.Errorf("%d calls with a body were looked at", bodies)
	}
	if !reflect.DeepEqual(*office, untouched) {
		t.Errorf("something reached the node: %+v", office)
	}
}

// bodyFields are the fields of a body, by the names that they have in JSON.
func bodyFields(t reflect.Type) map[string]reflect.Type {
	list := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			list[name] = f.Type
		}
	}
	return list
}

// fitting are the kinds of values that a field of a type takes.
func fitting(t reflect.Type) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return fitting(t.Elem())
	case reflect.String:
		return []string{"text"}
	case reflect.Bool:
		return []string{"bool"}
	case reflect.Int64:
		return []string{"number"}
	}
	return nil // a list, of which no element fits, or a time
}

// TestBodiesOfOtherNodes: what a node passes on is read as what clients send.
func TestBodiesOfOtherNodes(t *testing.T) {
	h := newTestAPI(&fakeOffice{}).forwarded()
	if w := ask(t, h, "POST", "/api/v1/moves", `{"keyspace": "k"}`); w.Code != 400 || !strings.Contains(w.Body.String(), "range and to are missing") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(t, h, "GET", "/api/v1/drains/here?kind=node", ""); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(t, h, "GET", "/api/v1/drains/here?number=7&kind=node&name="+rib.MethodReference, ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
