package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/wire/pg"
)

const (
	maxUsersShown = 10_000 // users of one shard; beyond it, ask about one by name
	usersAtOnce   = 8      // shards that are asked at a time
)

// UsersView is what the shards keep of users' passwords: whether it is the same, and never the thing itself.
type UsersView struct {
	Users  []UserView   `json:"users"`
	Failed []ShardError `json:"failed"` // shards that could not be asked
}

// UserView is one user, shard by shard.
type UserView struct {
	Name   string        `json:"name"`
	Alike  bool          `json:"alike"` // every shard that could be asked keeps the same, and lets the user log in
	Shards []UserOnShard `json:"shards"`
}

// UserOnShard is what one shard keeps of one user.
type UserOnShard struct {
	Shard string `json:"shard"`
	Kept  string `json:"kept"`           // "SCRAM-SHA-256 verifier", "MD5 hash", "no password", "no such role", "may not log in"
	Same  string `json:"same,omitempty"` // shards with the same letter keep the same
}

// ShardError is a shard that could not be asked, and why.
type ShardError struct {
	Shard string `json:"shard"`
	Error string `json:"error"`
}

// UserCopy is the body of POST /api/v1/users/copy.
type UserCopy struct {
	Name string `json:"name"` // whose
	From string `json:"from"` // the shard whose stored password the others shall keep too
}

// What UserOnShard.Kept says of a user without a stored password.
const (
	keptNothing = "no password"
	keptNobody  = "no such role"
	keptClosed  = "may not log in"
)

// role is a user as pg_authid of one shard has it.
type role struct {
	login  bool
	stored Secret // not Set: no password
}

// kept says what kind of thing is stored.
func (r *role) kept() string {
	switch {
	case r == nil:
		return keptNobody
	case !r.login:
		return keptClosed
	case !r.stored.Set():
		return keptNothing
	}
	shadow, err := pg.ParseShadow(r.stored.Reveal())
	if err != nil {
		return "something unknown"
	}
	return shadow.String()
}

// CheckUsers compares what the shards' primaries keep of one user's password, or of those of all users who may log in by one.
func (n *Node) CheckUsers(ctx context.Context, name string) (UsersView, error) {
	shards := n.shardNames()
	if len(shards) == 0 {
		return UsersView{}, &apiError{Status: http.StatusServiceUnavailable, RetryAfter: retryLeader, ErrorView: ErrorView{Error: "this node knows no shard yet", Hint: "'rangefinder status' shows which backends it has heard of."}}
	}
	roles := make([]map[string]*role, len(shards))
	failed := make([]error, len(shards))
	n.eachShard(shards, func(i int) {
		roles[i], failed[i] = n.rolesOn(ctx, shards[i], name)
	})
	v := UsersView{Users: []UserView{}, Failed: []ShardError{}}
	names := map[string]bool{}
	if name != "" {
		names[name] = true
	}
	var asked []int
	for i, shard := range shards {
		if failed[i] != nil {
			v.Failed = append(v.Failed, ShardError{shard, failed[i].Error()})
			continue
		}
		asked = append(asked, i)
		for who, r := range roles[i] {
			names[who] = names[who] || r.login && r.stored.Set()
		}
	}
	for who, wanted := range names {
		if !wanted {
			continue
		}
		u := UserView{Name: who, Alike: len(asked) > 0}
		var different []Secret
		for _, i := range asked {
			r := roles[i][who]
			on := UserOnShard{Shard: shards[i], Kept: r.kept()}
			if r != nil && r.stored.Set() {
				at := slices.Index(different, r.stored)
				if at < 0 {
					at, different = len(different), append(different, r.stored)
				}
				on.Same = letters(at)
			}
			u.Alike = u.Alike && on.Same == letters(0) && r.login
			u.Shards = append(u.Shards, on)
		}
		v.Users = append(v.Users, u)
	}
	slices.SortFunc(v.Users, func(a, b UserView) int { return strings.Compare(a.Name, b.Name) })
	return v, nil
}

// letters are A, B, ..., Z, AA, AB, ...
func letters(i int) string {
	s := string(rune('A' + i%26))
	if i >= 26 {
		return letters(i/26-1) + s
	}
	return s
}

func (n *Node) shardNames() (names []string) {
	for _, s := range n.fib.Load().Slots() {
		names = append(names, s.Shard())
	}
	slices.Sort(names)
	return names
}

// eachShard calls do with each index, several at a time.
func (n *Node) eachShard(shards []string, do func(i int)) {
	var wg sync.WaitGroup
	turns := make(chan struct{}, usersAtOnce)
	for i := range shards {
		turns <- struct{}{}
		wg.Go(func() {
			do(i)
			<-turns
		})
	}
	wg.Wait()
}

// rolesOn reads the users of a shard's primary: that one, or all that may log in. A user who is not there is not in the map.
func (n *Node) rolesOn(ctx context.Context, shard, name string) (map[string]*role, error) {
	conn, err := n.connectPrimary(ctx, shard, n.cfg().Probe.Database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	roles, err := readRoles(ctx, conn, name)
	return roles, needsSuperuser(err)
}

func readRoles(ctx context.Context, conn *pgx.Conn, name string) (map[string]*role, error) {
	rows, err := conn.Query(ctx, `SELECT rolname, rolcanlogin, coalesce(rolpassword, '') FROM pg_catalog.pg_authid
		WHERE CASE WHEN $1 = '' THEN rolcanlogin ELSE rolname = $1 END LIMIT $2`, name, maxUsersShown+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	roles := map[string]*role{}
	for rows.Next() {
		var who, stored string
		r := new(role)
		if err := rows.Scan(&who, &r.login, &stored); err != nil {
			return nil, err
		}
		r.stored = NewSecret(stored)
		roles[who] = r
	}
	if len(roles) > maxUsersShown {
		return nil, fmt.Errorf("it has more than %d users: ask about one by name", maxUsersShown)
	}
	return roles, rows.Err()
}

// needsSuperuser says what to do about a refusal.
func needsSuperuser(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == pg.CodeInsufficientPrivilege {
		return fmt.Errorf("%s: only a superuser sees and sets what is kept of passwords, name one under [admin] in the node's configuration", pe.Message)
	}
	return err
}

// CopyUser makes every shard keep the same of a user's password as one of them does, and verifies that they do. The roles must exist:
// what else they may do is not for this to decide.
func (n *Node) CopyUser(ctx context.Context, c UserCopy) (UsersView, error) {
	if c.Name == "" || c.From == "" {
		return UsersView{}, badRequest("name or from is missing", `For example {"name": "app", "from": "shard_1"}.`)
	}
	shards := n.shardNames()
	if !slices.Contains(shards, c.From) {
		return UsersView{}, badRequest(fmt.Sprintf("there is no shard %q", c.From), "Shards are "+orNone(strings.Join(shards, ", "))+".")
	}
	roles, err := n.rolesOn(ctx, c.From, c.Name)
	if err != nil {
		return UsersView{}, copyFailure(c, []ShardError{{c.From, err.Error()}}, "Nothing was changed.")
	}
	source := roles[c.Name]
	if kept := source.kept(); source == nil || !source.stored.Set() {
		return UsersView{}, copyFailure(c, []ShardError{{c.From, kept}}, "Nothing was changed. Name a shard where the user has a password: 'rangefinder user check "+c.Name+"' shows them.")
	}
	failed := make([]error, len(shards))
	n.eachShard(shards, func(i int) {
		if shards[i] != c.From {
			failed[i] = n.storeOn(ctx, shards[i], c.Name, source.stored)
		}
	})
	n.guard.Forget(c.Name)
	var refused []ShardError
	for i, err := range failed {
		if err != nil {
			refused = append(refused, ShardError{shards[i], err.Error()})
		}
	}
	n.log.Info("a user's stored password was copied", "user", c.Name, "from", c.From, "shards", len(shards)-1, "failed", len(refused))
	if len(refused) > 0 {
		return UsersView{}, copyFailure(c, refused, "The other shards keep the same now. Mend this and repeat it.")
	}
	v, err := n.CheckUsers(ctx, c.Name)
	if err == nil && (len(v.Failed) > 0 || len(v.Users) != 1 || !v.Users[0].Alike) {
		err = copyFailure(c, v.Failed, "It was changed meanwhile, or the role may not log in everywhere: see 'rangefinder user check "+c.Name+"'.")
	}
	return v, err
}

func copyFailure(c UserCopy, failed []ShardError, hint string) *apiError {
	var detail []string
	for _, f := range failed {
		detail = append(detail, f.Shard+": "+f.Error)
	}
	return &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
		Error: fmt.Sprintf("what %s keeps of %q could not be copied to every shard", c.From, c.Name), Detail: strings.Join(detail, "\n"), Hint: hint,
	}}
}

// storeOn sets what a shard's primary keeps of a user's password, and reads it again.
func (n *Node) storeOn(ctx context.Context, shard, name string, stored Secret) error {
	if strings.ContainsAny(stored.Reveal(), `'\`) {
		return errors.New("what is to be stored is no verifier")
	}
	conn, err := n.connectPrimary(ctx, shard, n.cfg().Probe.Database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	roles, err := readRoles(ctx, conn, name)
	switch {
	case err != nil:
		return needsSuperuser(err)
	case roles[name] == nil:
		return fmt.Errorf("%s: make it first, with the rights that it shall have", keptNobody)
	case roles[name].stored == stored:
		return nil
	}
	// PostgreSQL must not write it to its log or show it to whoever watches. That is said in a message of its own: what is in one
	// message is logged before any of it is done.
	for _, sql := range []string{
		"BEGIN; " + unseen,
		fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", pgx.Identifier{name}.Sanitize(), stored.Reveal()),
		"COMMIT",
	} {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return needsSuperuser(err)
		}
	}
	if roles, err = readRoles(ctx, conn, name); err != nil {
		return err
	}
	if roles[name] == nil || roles[name].stored != stored {
		return errors.New("it keeps something else than was set")
	}
	return nil
}

// unseen keeps the statements of a transaction out of the server's log, of pg_stat_activity, and of the extensions that most have.
const unseen = "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; SET LOCAL log_min_duration_sample = -1; " +
	"SET LOCAL log_transaction_sample_rate = 0; SET LOCAL log_min_error_statement = 'panic'; SET LOCAL track_activities = off; " +
	"SET LOCAL pg_stat_statements.track_utility = off; SET LOCAL pgaudit.log = 'none'"
