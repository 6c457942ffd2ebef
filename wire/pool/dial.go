package pool

import (
	"context"
	"errors"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// connect makes a connection whose place is already counted; old has had it. spare: it is made in advance. With errQueue, the backend has none left.
func (bp *backendPool) connect(ctx context.Context, b *rib.Backend, id Identity, old *Conn, spare bool) (*Conn, error) {
	if old != nil {
		old.retire()
	}
	renewals := bp.began(id)
	c, err := bp.dial(ctx, b, id, spare)
	if err == nil {
		bp.ended(id, c, renewals, nil, false)
		bp.connects.Add(1)
		return c, nil
	}
	bp.failures.Add(1)
	ce := &ConnectError{Backend: bp.name, Shard: b.Shard, Addr: bp.addr, Identity: id, Err: err}
	gaveUp := ctx.Err() != nil // a client that went away says nothing of the backend
	if bp.ended(id, nil, renewals, ce, gaveUp) {
		return nil, errQueue
	}
	if ce.Login() && !errors.Is(err, pg.ErrPlain) && !id.Own && bp.cfg.Refused != nil { // it may need the place that was given up
		bp.cfg.Refused(ctx, id)
	}
	if !gaveUp && ce.Elsewhere() && bp.cfg.Report != nil {
		bp.cfg.Report(bp.name, ce)
	}
	return nil, ce
}

func (bp *backendPool) dial(ctx context.Context, b *rib.Backend, id Identity, spare bool) (*Conn, error) {
	if limit := bp.limits.Load().Connect; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	s, err := bp.login(ctx, b, id, spare)
	for tries := 1; tries < maxLetGo && errors.Is(err, pg.ErrLetGo); tries++ { // somebody ends connections: says nothing of the backend yet
		s, err = bp.login(ctx, b, id, spare)
	}
	if err != nil {
		return nil, err
	}
	c := newConn(bp, b, id, s)
	c.spare = spare
	return c, nil
}

func (bp *backendPool) login(ctx context.Context, b *rib.Backend, id Identity, spare bool) (*pg.Server, error) {
	nc, err := bp.cfg.Dial(ctx, "tcp", b.Addr)
	if err != nil {
		return nil, err
	}
	KeepAlive(nc, bp.limits.Load().KeepAlive)
	cfg := &pg.ConnectConfig{User: id.User, Credential: bp.cfg.Credential(id), Database: id.Database, TLS: bp.cfg.tls(b.Addr), SystemID: b.SystemID, Warm: spare,
		NoPlain: bp.cfg.Plain != nil && !bp.cfg.Plain(b.Addr)}
	if id.Path != "" {
		cfg.Params = []pg.Param{{Key: "search_path", Value: id.Path}}
	}
	return pg.Connect(ctx, nc, cfg) // which closes it on every error
}
