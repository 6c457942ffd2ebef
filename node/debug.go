package node

import (
	"bytes"
	_ "embed" // debug.html
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"time"
)

//go:embed debug.html
var debugHTML string

// debugPage is what the template of /debug is filled with.
type debugPage struct {
	V        ClusterView
	Ready    bool
	Uptime   string
	Regions  []string
	Query    RouteQuery
	ArgBoxes []string // the arguments given, and an empty box for one more
	Answer   *RouteAnswer
	RouteErr string
	Fragment bool // only the part that refreshes itself
}

// page serves /debug. With ?fragment=1 it serves the part that the page itself fetches again every two seconds.
func (a *api) page(w http.ResponseWriter, r *http.Request) {
	p := debugPage{V: a.office.View(), Fragment: r.URL.Query().Get("fragment") != ""}
	p.Ready = len(p.V.Node.NotReady) == 0
	p.Uptime = time.Since(p.V.Node.Started).Round(time.Second).String()
	for _, x := range p.V.RTT {
		p.Regions = append(p.Regions, x.From, x.To)
	}
	for _, m := range p.V.Members {
		p.Regions = append(p.Regions, m.Region)
	}
	slices.Sort(p.Regions)
	p.Regions = slices.Compact(p.Regions)
	p.Query = RouteQuery{Database: r.URL.Query().Get("database"), User: r.URL.Query().Get("user")}
	if r.URL.Query().Has("sql") && !p.Fragment {
		q, err := routeQuery(r)
		for len(q.Args) > 0 && q.Args[len(q.Args)-1] == "" { // boxes left empty
			q.Args = q.Args[:len(q.Args)-1]
		}
		p.Query = q
		if err == nil {
			var answer RouteAnswer
			if answer, err = a.office.Route(r.Context(), q); err == nil {
				p.Answer = &answer
			}
		}
		if err != nil {
			p.RouteErr = err.Error()
		}
	}
	p.ArgBoxes = append(slices.Clone(p.Query.Args), "")
	t, err := template.New("debug").Funcs(template.FuncMap{"ms": showMS, "rtt": p.rtt, "progress": progress, "inc": func(i int) int { return i + 1 }, "host": hostOf, "port": portOf}).Parse(debugHTML)
	var body bytes.Buffer
	if err == nil {
		name := "page"
		if p.Fragment {
			name = "cluster"
		}
		err = t.ExecuteTemplate(&body, name, p)
	}
	if err != nil {
		fail(w, fmt.Errorf("show the page: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	_, _ = body.WriteTo(w)
}

func (p debugPage) rtt(from, to string) string {
	for _, x := range p.V.RTT {
		if x.From == from && x.To == to {
			return showMS(x.MS)
		}
	}
	return "·"
}

// showMS writes milliseconds for people: more digits the shorter they are.
func showMS(v float64) string {
	switch {
	case v < 0:
		return "unknown"
	case v == 0:
		return "0"
	case v < 1:
		return fmt.Sprintf("%.2f", v)
	case v < 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func hostOf(addr string) string { host, _, _ := net.SplitHostPort(addr); return host }
func portOf(addr string) string { _, port, _ := net.SplitHostPort(addr); return port }
