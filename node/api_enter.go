package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// requestIDHeader names a call: repeated with the same, it is carried out once. Every answer has it.
const requestIDHeader = "X-Request-Id"

// authorHeader tells the leader who has asked the node that passes a call on.
const authorHeader = "X-Rangefinder-Author"

type requestIDKey struct{}

// requestID is the call's; made if the caller gave none. "" outside of a call.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

func withRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// readRequestID takes the caller's id, or makes one.
func readRequestID(r *http.Request) (string, error) {
	id := r.Header.Get(requestIDHeader)
	if id == "" {
		return randomHex(16), nil
	}
	if len(id) > 128 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return randomHex(16), badRequest(requestIDHeader+" is no id", "It has 1 to 128 printable characters of ASCII, without spaces.")
	}
	return id, nil
}

// observed notes what was answered.
type observed struct {
	http.ResponseWriter
	status        int
	code, message string // of an error
}

// WriteHeader notes the status.
func (o *observed) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// enter is what every call to the HTTP port goes through: who asks, how much, under which id; and what came of it, for the audit log.
func (a *api) enter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" { // for load balancers, which have no token
			next.ServeHTTP(w, r)
			return
		}
		begin, o := time.Now(), &observed{ResponseWriter: w}
		id, err := readRequestID(r)
		o.Header().Set(requestIDHeader, id)
		who, refused := a.gate().check(r)
		var body []byte
		if err = errors.Join(refused, err); err == nil {
			body, err = bounded(o, r)
		}
		if err != nil {
			if o.status == 0 {
				fail(o, err)
			}
		} else {
			ctx := withCaller(withRequestID(r.Context(), id), who)
			next.ServeHTTP(o, r.WithContext(ctx))
		}
		if strings.HasPrefix(r.URL.Path, "/api/") && (!reads(r) || refused != nil) {
			a.audit.add(AuditView{
				Time: begin.UTC(), Who: who.who, Remote: r.RemoteAddr, RequestID: id, Call: clipped(r.Method+" "+r.URL.Path, 256), Body: audited(body),
				Status: o.status, Code: o.code, Message: clipped(o.message, 1000), MS: ms(time.Since(begin)),
			})
		}
	})
}

// enterForwarded is the same for what other nodes pass on. They have asked who it is, and keep the record.
func (a *api) enterForwarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := readRequestID(r)
		if err == nil {
			_, err = bounded(w, r)
		}
		if err != nil {
			fail(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(withCaller(withRequestID(r.Context(), id), caller{who: clipped(r.Header.Get(authorHeader), 128), node: true})))
	})
}

// bounded reads the body of a call that may have one, into memory. One that says that it is too large is refused before it is read.
func bounded(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if reads(r) {
		r.Body = http.MaxBytesReader(w, r.Body, 0)
		return nil, nil
	}
	tooLarge := &apiError{Status: http.StatusRequestEntityTooLarge, ErrorView: ErrorView{
		Error: fmt.Sprintf("the body is larger than %d bytes", maxBody), Hint: "Name fewer ranges in one request.",
	}}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // nobody is to read the rest only to throw it away
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case err != nil:
		return nil, badRequest("the body ended early: "+err.Error(), "Send one JSON object.")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}
