package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// The world of TPC-C, small: what a warehouse has lies under its number, so on one shard; items are on all of them. One line of an order in a
// hundred comes from another warehouse, and 15 of 100 payments are by a customer of another one: these transactions span shards.
const (
	warehouses, districts, customers, items = 6, 4, 20, 60

	remoteLines, remotePayments = 1, 15 // of a hundred
)

const tpccSchema = `
CREATE TABLE warehouse (w_id int PRIMARY KEY, w_tax numeric(4, 4), w_ytd numeric(12, 2));
CREATE TABLE district (d_w_id int, d_id int, d_tax numeric(4, 4), d_ytd numeric(12, 2), d_next_o_id int, PRIMARY KEY (d_w_id, d_id), FOREIGN KEY (d_w_id) REFERENCES warehouse);
CREATE TABLE customer (c_w_id int, c_d_id int, c_id int, c_last text, c_discount numeric(4, 4), c_balance numeric(12, 2), c_ytd_payment numeric(12, 2), c_payment_cnt int, c_delivery_cnt int,
	PRIMARY KEY (c_w_id, c_d_id, c_id), FOREIGN KEY (c_w_id, c_d_id) REFERENCES district);
CREATE INDEX customer_last ON customer (c_w_id, c_d_id, c_last);
CREATE TABLE history (h_w_id int, h_d_id int, h_c_w_id int, h_c_d_id int, h_c_id int, h_amount numeric(6, 2), h_date timestamptz, h_data text);
CREATE TABLE orders (o_w_id int, o_d_id int, o_id int, o_c_id int, o_entry_d timestamptz, o_carrier_id int, o_ol_cnt int, PRIMARY KEY (o_w_id, o_d_id, o_id), FOREIGN KEY (o_w_id, o_d_id, o_c_id) REFERENCES customer);
CREATE TABLE new_order (no_w_id int, no_d_id int, no_o_id int, PRIMARY KEY (no_w_id, no_d_id, no_o_id));
CREATE TABLE item (i_id int PRIMARY KEY, i_name text, i_price numeric(5, 2));
CREATE TABLE stock (s_w_id int, s_i_id int REFERENCES item, s_quantity int, s_ytd int, s_order_cnt int, s_remote_cnt int, PRIMARY KEY (s_w_id, s_i_id));
CREATE TABLE order_line (ol_w_id int, ol_d_id int, ol_o_id int, ol_number int, ol_i_id int, ol_supply_w_id int, ol_delivery_d timestamptz, ol_quantity int, ol_amount numeric(6, 2),
	PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number), FOREIGN KEY (ol_w_id, ol_d_id, ol_o_id) REFERENCES orders)`

// tpccTables are the sharded ones beside warehouse, with their keys.
var tpccTables = []string{"district:d_w_id", "customer:c_w_id", "history:h_w_id", "orders:o_w_id", "new_order:no_w_id", "stock:s_w_id", "order_line:ol_w_id"}

// tpccRows fills it, as one text for psql.
func tpccRows() string {
	var b strings.Builder
	rows := func(into string, n int, row func(i int) string) {
		b.WriteString("INSERT INTO " + into + " VALUES ")
		for i := range n {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("(" + row(i) + ")")
		}
		b.WriteString(";\n")
	}
	rows("item (i_id, i_name, i_price)", items, func(i int) string { return fmt.Sprintf("%d, 'item %[1]d', %d.99", i+1, 1+i%90) })
	rows("warehouse", warehouses, func(i int) string { return fmt.Sprintf("%d, 0.%04d, 0", i+1, i*100) })
	rows("district", warehouses*districts, func(i int) string { return fmt.Sprintf("%d, %d, 0.05, 0, 1", i/districts+1, i%districts+1) })
	for w := range warehouses {
		rows("customer", districts*customers, func(i int) string {
			return fmt.Sprintf("%d, %d, %d, 'last %d', 0.1, 0, 0, 0, 0", w+1, i/customers+1, i%customers+1, i%7)
		})
		rows("stock", items, func(i int) string { return fmt.Sprintf("%d, %d, 50, 0, 0, 0", w+1, i+1) })
	}
	return b.String()
}

// terminal is one of TPC-C's, on one connection.
type terminal struct {
	conn *pgx.Conn
	n    int
	r    *rand.Rand
	mode pgx.QueryExecMode

	payments int
	mark     string // what the transaction in hand leaves, if it takes effect; see book.marks
}

// errItem is that of an order whose last item is none: one in a hundred is taken back by its client.
var errItem = errors.New("there is no such item")

// transaction runs one of the five, as often as TPC-C has each, and notes how it has ended.
func (x *terminal) transaction(ctx context.Context, b *book) (err error) {
	name, run, committing := "", x.newOrder, false
	x.mark = ""
	switch n := x.r.IntN(100); {
	case n < 45:
		name = "new order"
	case n < 88:
		name, run = "payment", x.payment
	case n < 92:
		name, run = "delivery", x.delivery
	case n < 96:
		name, run = "order status", x.orderStatus
	default:
		name, run = "stock level", x.stockLevel
	}
	tx, err := x.conn.Begin(ctx)
	if err == nil {
		if err = run(ctx, tx); err == nil {
			committing = true
			err = tx.Commit(ctx)
		}
		if err != nil {
			_ = tx.Rollback(ctx)
		}
	}
	f := fateOf(err, committing)
	if errors.Is(err, errItem) {
		err = nil
	}
	b.note(name, x.mark, f, err)
	return err
}

// repeats tells whether a client would try again: the transaction took no effect.
func repeats(err error) bool {
	state := sqlstate(err)
	return state == pg.CodeDeadlockDetected || state == pg.CodeSerializationFailure
}

func (x *terminal) one(ctx context.Context, tx pgx.Tx, into []any, sql string, args ...any) error {
	if err := tx.QueryRow(ctx, sql, append([]any{x.mode}, args...)...).Scan(into...); err != nil {
		return fmt.Errorf("%s %v: %w", sql, args, err)
	}
	return nil
}

func (x *terminal) exec(ctx context.Context, tx pgx.Tx, rows int64, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, append([]any{x.mode}, args...)...)
	if err == nil && rows >= 0 && tag.RowsAffected() != rows {
		err = fmt.Errorf("%s, want %d rows", tag, rows)
	}
	if err != nil {
		return fmt.Errorf("%s %v: %w", sql, args, err)
	}
	return nil
}

// other is another warehouse in so many of a hundred cases, else the same.
func (x *terminal) other(w, percent int) int {
	if x.r.IntN(100) >= percent {
		return w
	}
	return (w-1+1+x.r.IntN(warehouses-1))%warehouses + 1
}

func (x *terminal) newOrder(ctx context.Context, tx pgx.Tx) error {
	type line struct{ item, from, quantity int }
	w, d, c := x.r.IntN(warehouses)+1, x.r.IntN(districts)+1, x.r.IntN(customers)+1
	lines := make([]line, 5+x.r.IntN(11))
	for i := range lines {
		lines[i] = line{x.r.IntN(items) + 1, x.other(w, remoteLines), x.r.IntN(10) + 1}
	}
	slices.SortFunc(lines, func(a, b line) int { return (a.from-b.from)*items + a.item - b.item }) // fewer deadlocks
	wrong := x.r.IntN(100) == 0
	var tax, discount, rate float64
	var o int
	if err := x.one(ctx, tx, []any{&tax, &discount}, "SELECT w_tax, c_discount FROM warehouse, customer WHERE w_id = $1 AND c_w_id = w_id AND c_d_id = $2 AND c_id = $3", w, d, c); err != nil {
		return err
	}
	if err := x.one(ctx, tx, []any{&o, &rate}, "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2 RETURNING d_next_o_id - 1, d_tax", w, d); err != nil {
		return err
	}
	x.mark = fmt.Sprintf("order %d/%d/%d", w, d, o)
	if err := x.exec(ctx, tx, 1, "INSERT INTO orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_ol_cnt) VALUES ($1, $2, $3, $4, now(), $5)", w, d, o, c, len(lines)); err != nil {
		return err
	}
	if err := x.exec(ctx, tx, 1, "INSERT INTO new_order (no_w_id, no_d_id, no_o_id) VALUES ($1, $2, $3)", w, d, o); err != nil {
		return err
	}
	for i, l := range lines {
		if wrong && i == len(lines)-1 {
			l.item = items + 1
		}
		var price float64
		if err := x.one(ctx, tx, []any{&price}, "SELECT i_price FROM item WHERE i_id = $1", l.item); errors.Is(err, pgx.ErrNoRows) {
			return errItem
		} else if err != nil {
			return err
		}
		remote := 0
		if l.from != w {
			remote = 1
		}
		if err := x.exec(ctx, tx, 1, `UPDATE stock SET s_quantity = CASE WHEN s_quantity >= $3::int + 10 THEN s_quantity - $3 ELSE s_quantity - $3 + 91 END, s_ytd = s_ytd + $3,
			s_order_cnt = s_order_cnt + 1, s_remote_cnt = s_remote_cnt + $4::int WHERE s_w_id = $1 AND s_i_id = $2`, l.from, l.item, l.quantity, remote); err != nil {
			return err
		}
		if err := x.exec(ctx, tx, 1, "INSERT INTO order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_quantity, ol_amount) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
			w, d, o, i+1, l.item, l.from, l.quantity, fmt.Sprintf("%.2f", float64(l.quantity)*price)); err != nil {
			return err
		}
	}
	return nil
}

func (x *terminal) payment(ctx context.Context, tx pgx.Tx) error {
	w, d := x.r.IntN(warehouses)+1, x.r.IntN(districts)+1
	cw, cd, c := x.other(w, remotePayments), x.r.IntN(districts)+1, x.r.IntN(customers)+1
	amount := fmt.Sprintf("%d.%02d", 1+x.r.IntN(4999), x.r.IntN(100))
	if err := x.exec(ctx, tx, 1, "UPDATE warehouse SET w_ytd = w_ytd + $2 WHERE w_id = $1", w, amount); err != nil {
		return err
	}
	if err := x.exec(ctx, tx, 1, "UPDATE district SET d_ytd = d_ytd + $3 WHERE d_w_id = $1 AND d_id = $2", w, d, amount); err != nil {
		return err
	}
	if x.r.IntN(100) < 60 { // by the name: the one in the middle
		rows, err := tx.Query(ctx, "SELECT c_id FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 ORDER BY c_id", x.mode, cw, cd, fmt.Sprint("last ", x.r.IntN(7)))
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil || len(ids) == 0 {
			return fmt.Errorf("%d customers of that name: %w", len(ids), err)
		}
		c = ids[len(ids)/2]
	}
	if err := x.exec(ctx, tx, 1, "UPDATE customer SET c_balance = c_balance - $4, c_ytd_payment = c_ytd_payment + $4, c_payment_cnt = c_payment_cnt + 1 WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3", cw, cd, c, amount); err != nil {
		return err
	}
	x.payments++
	x.mark = fmt.Sprintf("payment %d/%d", x.n, x.payments)
	return x.exec(ctx, tx, 1, "INSERT INTO history (h_w_id, h_d_id, h_c_w_id, h_c_d_id, h_c_id, h_amount, h_date, h_data) VALUES ($1, $2, $3, $4, $5, $6, now(), $7)", w, d, cw, cd, c, amount, x.mark)
}

func (x *terminal) delivery(ctx context.Context, tx pgx.Tx) error {
	w, carrier := x.r.IntN(warehouses)+1, x.r.IntN(10)+1
	for d := 1; d <= districts; d++ {
		var o, c int
		err := x.one(ctx, tx, []any{&o}, `DELETE FROM new_order WHERE no_w_id = $1 AND no_d_id = $2 AND no_o_id = (SELECT min(no_o_id) FROM new_order WHERE no_w_id = $1 AND no_d_id = $2) RETURNING no_o_id`, w, d)
		if errors.Is(err, pgx.ErrNoRows) { // none is open, or somebody else delivers it
			continue
		}
		if err != nil {
			return err
		}
		if err := x.one(ctx, tx, []any{&c}, "UPDATE orders SET o_carrier_id = $4 WHERE o_w_id = $1 AND o_d_id = $2 AND o_id = $3 RETURNING o_c_id", w, d, o, carrier); err != nil {
			return err
		}
		if err := x.exec(ctx, tx, -1, "UPDATE order_line SET ol_delivery_d = now() WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3", w, d, o); err != nil {
			return err
		}
		if err := x.exec(ctx, tx, 1, `UPDATE customer SET c_delivery_cnt = c_delivery_cnt + 1, c_balance = c_balance + (SELECT sum(ol_amount) FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $4)
			WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3`, w, d, c, o); err != nil {
			return err
		}
	}
	return nil
}

func (x *terminal) orderStatus(ctx context.Context, tx pgx.Tx) error {
	w, d, c := x.r.IntN(warehouses)+1, x.r.IntN(districts)+1, x.r.IntN(customers)+1
	var balance float64
	if err := x.one(ctx, tx, []any{&balance}, "SELECT c_balance FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3", w, d, c); err != nil {
		return err
	}
	var o, count, lines int
	err := x.one(ctx, tx, []any{&o, &count}, "SELECT o_id, o_ol_cnt FROM orders WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3 ORDER BY o_id DESC LIMIT 1", w, d, c)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = x.one(ctx, tx, []any{&lines}, "SELECT count(*) FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3", w, d, o)
	}
	if err == nil && lines != count {
		err = fmt.Errorf("order %d of %d, %d is seen with %d lines of %d", o, w, d, lines, count)
	}
	return err
}

func (x *terminal) stockLevel(ctx context.Context, tx pgx.Tx) error {
	w, d := x.r.IntN(warehouses)+1, x.r.IntN(districts)+1
	var next, low int
	if err := x.one(ctx, tx, []any{&next}, "SELECT d_next_o_id FROM district WHERE d_w_id = $1 AND d_id = $2", w, d); err != nil {
		return err
	}
	return x.one(ctx, tx, []any{&low}, `SELECT count(DISTINCT s_i_id) FROM order_line JOIN stock ON s_w_id = ol_w_id AND s_i_id = ol_i_id
		WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id < $3 AND ol_o_id >= $3 - 20 AND s_quantity < $4`, w, d, next, 10+x.r.IntN(11))
}
