package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// contract holds answers of the API against its OpenAPI document.
type contract struct {
	document object
	seen     map[string]bool // "POST /api/v1/moves 202"
}

// newContract reads the document as it is served.
func newContract(t *testing.T, text []byte) *contract {
	t.Helper()
	c := &contract{seen: map[string]bool{}}
	if err := json.Unmarshal(text, &c.document); err != nil {
		t.Fatalf("the document is not JSON: %v\n%.500s", err, text)
	}
	return c
}

// answer checks one answer: the path, the method and the status are in the document, and the body is as its schema says.
func (c *contract) answer(method, path string, status int, body []byte) error {
	at, said := c.operation(method, path)
	if said == nil {
		return fmt.Errorf("%s %s is not in the document", method, path)
	}
	answers, _ := said["responses"].(object)
	one, _ := answers[strconv.Itoa(status)].(object)
	if one == nil {
		return fmt.Errorf("%s %s answers %d, which is not in the document: %s", method, at, status, body)
	}
	c.seen[fmt.Sprintf("%s %s %d", method, at, status)] = true
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("%s %s: %v: %.200s", method, path, err, body)
	}
	schema := one["content"].(object)["application/json"].(object)["schema"].(object)
	if err := c.fits(schema, v, "answer"); err != nil {
		return fmt.Errorf("%s %s %d: %w\n%.1000s", method, path, status, err, body)
	}
	return nil
}

// call checks the body of a call that a node has taken.
func (c *contract) call(method, path string, body []byte) error {
	_, said := c.operation(method, path)
	if said == nil {
		return fmt.Errorf("%s %s is not in the document", method, path)
	}
	taken, _ := said["requestBody"].(object)
	if taken == nil {
		return fmt.Errorf("%s %s takes no body", method, path)
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	return c.fits(taken["content"].(object)["application/json"].(object)["schema"].(object), v, "body")
}

var inBraces = regexp.MustCompile(`\{[^}]*\}`)

func (c *contract) operation(method, path string) (at string, said object) {
	path, _, _ = strings.Cut(path, "?")
	for name, item := range c.document["paths"].(object) {
		pattern := "^" + inBraces.ReplaceAllString(name, `[^/]+`) + "$"
		if ok, _ := regexp.MatchString(pattern, path); !ok || strings.Contains(name, "{") && c.document["paths"].(object)[path] != nil {
			continue
		}
		said, _ = item.(object)[strings.ToLower(method)].(object)
		return name, said
	}
	return "", nil
}

// fits is as much of JSON Schema as the document uses; a keyword that it does not know is an error.
func (c *contract) fits(schema object, v any, where string) error {
	for key, want := range schema {
		switch key {
		case "description", "format", "maxLength":
		case "$ref":
			name := strings.TrimPrefix(want.(string), "#/components/schemas/")
			one, ok := c.document["components"].(object)["schemas"].(object)[name].(object)
			if !ok {
				return fmt.Errorf("%s: there is no schema %s", where, name)
			}
			if err := c.fits(one, v, where); err != nil {
				return err
			}
		case "anyOf":
			var errs []string
			for _, one := range want.([]any) {
				if err := c.fits(one.(object), v, where); err != nil {
					errs = append(errs, err.Error())
				}
			}
			if len(errs) == len(want.([]any)) {
				return fmt.Errorf("%s: %s", where, strings.Join(errs, "; "))
			}
		case "type":
			kinds, ok := want.([]any)
			if !ok {
				kinds = []any{want}
			}
			if !slices.Contains(kinds, any(kindOf(v))) && !(slices.Contains(kinds, any("number")) && kindOf(v) == "integer") {
				return fmt.Errorf("%s is %s, want %v", where, kindOf(v), want)
			}
		case "required":
			of, _ := v.(object)
			for _, name := range want.([]any) {
				if _, ok := of[name.(string)]; !ok {
					return fmt.Errorf("%s lacks %s", where, name)
				}
			}
		case "properties":
			of, _ := v.(object)
			for name, value := range of {
				if one, ok := want.(object)[name].(object); ok {
					if err := c.fits(one, value, where+"."+name); err != nil {
						return err
					}
				} else if schema["additionalProperties"] == any(false) {
					return fmt.Errorf("%s has the field %s, which the document does not know", where, name)
				}
			}
		case "additionalProperties":
			one, ok := want.(object)
			of, isObject := v.(object)
			if !ok || !isObject {
				if isObject && schema["properties"] == nil && len(of) > 0 {
					return fmt.Errorf("%s has fields, and is to have none", where)
				}
				continue
			}
			for name, value := range of {
				if err := c.fits(one, value, where+"."+name); err != nil {
					return err
				}
			}
		case "items":
			list, _ := v.([]any)
			for i, x := range list {
				if err := c.fits(want.(object), x, fmt.Sprintf("%s[%d]", where, i)); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("%s: the keyword %s is not known", where, key)
		}
	}
	return nil
}

func kindOf(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if x == float64(int64(x)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// exampleCalls is a call of each operation that a node grants, by method and path.
func exampleCalls() map[string]string {
	return map[string]string{
		"GET /api/v1/openapi.json":                        "",
		"GET /api/v1/keyspaces":                           "",
		"POST /api/v1/keyspaces/tables":                   `{"keyspace": "app.orders", "also": ["app.invoices:customer_id"]}`,
		"POST /api/v1/nodes/forget":                       `{"node": "fra-9"}`,
		"POST /api/v1/keyspaces/drop":                     `{"keyspace": "app.orders"}`,
		"POST /api/v1/keyspaces":                          `{"name": "app.orders", "method": "hash", "types": ["bigint"], "key": ["customer_id"], "shards": ["shard_1"]}`,
		"POST /api/v1/keyspaces/values":                   `{"keyspace": "app.sales", "values": [{"value": "de", "shard": "shard_1"}]}`,
		"GET /api/v1/keyspaces/check?keyspace=app.orders": "",
		"GET /api/v1/ranges?keyspace=app.orders":          "",
		"GET /api/v1/users?name=app":                      "",
		"POST /api/v1/users/copy":                         `{"name": "app", "from": "shard_1"}`,
		"GET /api/v1/drains":                              "",
		"POST /api/v1/drains":                             `{"kind": "region", "name": "fra", "for": "1h"}`,
		"GET /api/v1/drains/left?kind=region&name=fra":    "",
		"POST /api/v1/ranges/split":                       `{"keyspace": "app.orders", "at": ["1500"], "reason": "hot"}`,
		"POST /api/v1/ranges/merge":                       `{"keyspace": "app.orders", "range": "1000..2000"}`,
		"GET /api/v1/history?keyspace=app.orders&limit=5": "",
		"GET /api/v1/moves":                               "",
		"POST /api/v1/moves":                              `{"keyspace": "app.orders", "range": "1000-2000", "to": "shard_3"}`,
		"GET /api/v1/moves/7":                             "",
		"POST /api/v1/moves/7/pause":                      `{}`,
		"POST /api/v1/moves/7/resume":                     `{"reason": "night"}`,
		"POST /api/v1/moves/7/abort":                      `{}`,
		"GET /api/v1/rebalance?tolerance=0.2":             "",
		"GET /api/v1/routing-map":                         "",
		"POST /api/v1/routing-map":                        `{"partition_key_range": "1000-2000", "target_backend": "shard_3", "ttl": 3600}`,
		"POST /api/v1/reload":                             `{}`,
		"GET /api/v1/audit?limit=10":                      "",
	}
}

// TestTheDocumentTellsWhatIsAnswered calls each operation of the document, and holds call and answer against it.
func TestTheDocumentTellsWhatIsAnswered(t *testing.T) {
	office := &fakeOffice{view: exampleView(), left: []DrainLeftView{{Nodes: 1, Left: []LeftView{{What: "sessions", Count: 3}}}}}
	office.view.Drains = []DrainView{{Kind: "region", Name: "fra"}}
	a := newTestAPI(office)
	h := a.handler()
	w := ask(t, h, "GET", "/api/v1/openapi.json", "")
	c := newContract(t, w.Body.Bytes())
	if v := c.document["openapi"]; w.Code != 200 || v != "3.1.0" {
		t.Fatalf("%d, version %v", w.Code, v)
	}
	for call, body := range exampleCalls() {
		method, path, _ := strings.Cut(call, " ")
		if body != "" {
			if err := c.call(method, path, []byte(body)); err != nil {
				t.Errorf("%s: %v", call, err)
			}
		}
		w := ask(t, h, method, path, body)
		if err := c.answer(method, path, w.Code, w.Body.Bytes()); err != nil || w.Code/100 != 2 {
			t.Errorf("%s: %d %v", call, w.Code, err)
		}
		if w.Header().Get(requestIDHeader) == "" {
			t.Errorf("%s: the answer has no %s", call, requestIDHeader)
		}
		if method == "POST" { // a refusal is an answer too
			w := ask(t, h, method, path, `{"nonsense": 1}`)
			if err := c.answer(method, path, w.Code, w.Body.Bytes()); err != nil || w.Code != 400 {
				t.Errorf("%s with nonsense: %d %v", call, w.Code, err)
			}
		}
	}
	for _, o := range a.operations() {
		if !o.inside && !c.seen[fmt.Sprintf("%s %s %d", o.method, o.path, o.status)] {
			t.Errorf("no example calls %s %s, or it did not answer %d", o.method, o.path, o.status)
		}
		if o.inside != (o.summary == "") {
			t.Errorf("%s %s: summary %q", o.method, o.path, o.summary)
		}
	}
	for _, bad := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/api/v1/nothing", 200, `{}`}, {"GET", "/api/v1/keyspaces", 418, `{}`}, {"GET", "/api/v1/keyspaces", 200, `{}`},
		{"GET", "/api/v1/keyspaces", 200, `{"keyspaces": [], "more": 1}`}, {"GET", "/api/v1/keyspaces", 200, `{"keyspaces": [{"id": "seven"}]}`},
		{"GET", "/api/v1/drains", 200, `{"drains": 7}`}, {"POST", "/api/v1/drains", 400, `{"message": "no code"}`},
	} {
		if err := c.answer(bad.method, bad.path, bad.status, []byte(bad.body)); err == nil {
			t.Errorf("the check takes anything: %+v", bad)
		}
	}
}

// TestAHandOverThatTakesLonger is told apart from one that is done, by programs and on the command line.
func TestAHandOverThatTakesLonger(t *testing.T) {
	office := &fakeOffice{slow: true}
	h := newTestAPI(office).handler()
	c := newContract(t, ask(t, h, "GET", "/api/v1/openapi.json", "").Body.Bytes())
	w := ask(t, h, "POST", "/api/v1/routing-map", exampleCalls()["POST /api/v1/routing-map"])
	if err := c.answer("POST", "/api/v1/routing-map", w.Code, w.Body.Bytes()); err != nil || w.Code != 202 || !strings.Contains(w.Body.String(), `"changed": false`) {
		t.Errorf("%d %v: %s", w.Code, err, w.Body)
	}
	code, out, errs := runCLI("range", "map", "1000-2000", "--to", "shard_3", "--admin", serveOffice(t, office))
	if code != 1 || !strings.Contains(errs, "still belongs to shard_2: move 7 is at frozen") || !strings.Contains(errs, "rangefinder move status 7 --watch") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestAMethodThatIsNotThere(t *testing.T) {
	w := ask(t, newTestAPI(&fakeOffice{}).handler(), "DELETE", "/api/v1/drains", "", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
	if w.Code != 405 || w.Header().Get("Allow") != "GET, POST" || !strings.Contains(w.Body.String(), `"code": "method_not_allowed"`) {
		t.Errorf("%d, Allow %q: %s", w.Code, w.Header().Get("Allow"), w.Body)
	}
}
