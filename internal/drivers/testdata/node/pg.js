// node-postgres (pg), with pg-copy-streams and pg-cursor.
'use strict'

const crypto = require('node:crypto')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { Client, Pool } = require('pg')
const copy = require('pg-copy-streams')
const Cursor = require('pg-cursor')
const d = require('./driver.js')
const { assert, step, base, things, range } = d

const options = (o) => ({
  host: d.host, port: d.port, user: d.user, password: d.password, database: d.database, application_name: d.name, ssl: { ca: d.root }, ...o,
})

// using runs a function with a client of its own.
async function using(o, run) {
  const client = new Client(options(o))
  await client.connect()
  try {
    return await run(client)
  } finally {
    await client.end()
  }
}

const insert = 'INSERT INTO orders (customer_id, id, note) VALUES ($1, $2, $3)'
const byKey = 'SELECT note FROM orders WHERE customer_id = $1 ORDER BY id'
const notes = async (client, k) => (await client.query(byKey, [k])).rows.map((r) => r.note)

step('connect', async () => {
  for (const enableChannelBinding of [false, true]) {
    await using({ enableChannelBinding }, async (client) => {
      assert.equal(client.connection.stream.authorized, true)
      assert.deepEqual((await client.query('SELECT 42 AS v')).rows, [{ v: 42 }])
    })
  }
  const e = await d.error(using({ ssl: { ca: d.wrongRoot } }, () => {}))
  assert.match(e.message, /certificate|self-signed/)
  assert.equal((await d.error(using({ password: 'wrong' }, () => {}))).code, '28P01')
})

step('rows by key', () =>
  using({}, async (client) => {
    await client.query(`CREATE TABLE ${things} (id int PRIMARY KEY, name text)`)
    for (const k of range(base, base + 40)) assert.equal((await client.query(insert, [k, 1, `note ${k}`])).rowCount, 1)
    for (const k of range(base, base + 40)) {
      assert.deepEqual(await notes(client, k), [`note ${k}`])
      assert.deepEqual((await client.query(`SELECT customer_id, note FROM orders WHERE customer_id = ${k}`)).rows, [{ customer_id: String(k), note: `note ${k}` }])
    }
    assert.deepEqual((await client.query("UPDATE orders SET note = 'changed' WHERE customer_id = $1 RETURNING id", [base])).rows, [{ id: 1 }])
    assert.equal((await client.query('DELETE FROM orders WHERE customer_id = $1', [base + 1])).rowCount, 1)
    assert.deepEqual(await notes(client, base), ['changed'])
    assert.deepEqual(await notes(client, base + 1), [])
  }))

step('transactions', () =>
  using({}, async (client) => {
    const k = base + 100
    await client.query('BEGIN')
    await client.query(insert, [k, 1, 'committed'])
    assert.deepEqual(await notes(client, k), ['committed'])
    await client.query('COMMIT')
    await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE')
    await client.query(insert, [k, 2, 'rolled back'])
    assert.deepEqual(await notes(client, k), ['committed', 'rolled back'])
    await client.query('ROLLBACK')
    assert.deepEqual(await notes(client, k), ['committed'])

    await client.query('BEGIN')
    await client.query(insert, [k, 3, 'before the error'])
    assert.equal((await d.error(client.query('SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = $1', [k]))).code, '22012')
    assert.equal((await d.error(client.query(byKey, [k]))).code, '25P02')
    assert.equal((await client.query('COMMIT')).command, 'ROLLBACK')
    assert.deepEqual(await notes(client, k), ['committed'])

    await client.query('BEGIN')
    await client.query(insert, [k, 4, 'kept'])
    await client.query('SAVEPOINT sp')
    await client.query(insert, [k, 5, 'undone'])
    assert.equal((await d.error(client.query(insert, [k, 4, 'twice']))).code, '23505')
    await client.query('ROLLBACK TO SAVEPOINT sp')
    await client.query(insert, [k, 6, 'kept too'])
    await client.query('COMMIT')
    assert.deepEqual(await notes(client, k), ['committed', 'kept', 'kept too'])
  }))

step('a prepared statement', () =>
  using({}, async (client) => {
    for (const i of range(0, 200)) {
      const k = base + 2 + (i % 38)
      assert.deepEqual((await client.query({ name: 'by key', text: byKey, values: [k] })).rows, [{ note: `note ${k}` }])
    }
  }))

step('many prepared statements', () =>
  using({}, async (client) => {
    for (const turn of range(0, 3)) {
      for (const i of range(0, 30)) {
        const k = base + 2 + ((i + turn) % 38)
        const query = { name: `s${i}`, text: `SELECT note, ${i} AS i FROM orders WHERE customer_id = $1`, values: [k] }
        assert.deepEqual((await client.query(query)).rows, [{ note: `note ${k}`, i }])
      }
    }
  }))

step('batches', async () => {
  for (const pipelined of [false, true]) {
    // With the option the driver sends every statement at once, each with a Sync of its own.
    await using({ pipeline: pipelined }, async (client) => {
      await Promise.all(range(0, 300).map((i) => client.query(`INSERT INTO ${things} VALUES ($1, $2)`, [i, `thing ${i}`])))
      const keys = range(base + 2, base + 40)
      assert.deepEqual(await Promise.all(keys.map((k) => notes(client, k))), keys.map((k) => [`note ${k}`]))
      const named = keys.map((k) => client.query({ name: 'piped', text: byKey, values: [k] }))
      assert.deepEqual((await Promise.all(named)).map((r) => r.rows[0].note), keys.map((k) => `note ${k}`))
      const results = await Promise.allSettled([
        client.query(`UPDATE ${things} SET name = 'first' WHERE id = 1`),
        client.query(`INSERT INTO ${things} VALUES ($1, 'twice')`, [1]),
        client.query(`UPDATE ${things} SET name = name || ' and third' WHERE id = $1`, [1]),
      ])
      assert.deepEqual(results.map((r) => r.reason?.code ?? r.value.rowCount), [1, '23505', 1])
      assert.deepEqual((await client.query(`SELECT name FROM ${things} WHERE id = 1`)).rows, [{ name: 'first and third' }])
      await client.query(`TRUNCATE ${things}`)
    })
  }
  await using({}, async (client) => {
    const results = await client.query(`INSERT INTO ${things} VALUES (1, 'a'); SELECT name FROM ${things} WHERE id = 1; SELECT 2 AS v`)
    assert.deepEqual(results.map((r) => r.rows), [[], [{ name: 'a' }], [{ v: 2 }]])
    // A cursor keeps its portal open between requests, without a Sync.
    const cursor = client.query(new Cursor('SELECT i FROM one, generate_series(1, $1::int) i', [1000]))
    let got = []
    for (let rows; (rows = await cursor.read(70)).length; ) got = got.concat(rows.map((r) => r.i))
    assert.deepEqual(got, range(1, 1001))
    await cursor.close()
    const left = client.query(new Cursor('SELECT i FROM one, generate_series(1, $1::int) i', [1000]))
    assert.equal((await left.read(1)).length, 1)
    await left.close()
    assert.deepEqual(await notes(client, base + 2), [`note ${base + 2}`])
  })
})

step('copy in', () =>
  using({}, async (client) => {
    const copyIn = async (rows) => pipeline(Readable.from(rows), client.query(copy.from(`COPY ${things} (id, name) FROM STDIN`)))
    await client.query(`TRUNCATE ${things}`)
    await copyIn(range(0, 2000).map((i) => d.copyText([i, d.awkward(i)])))
    const e = await d.error(copyIn([d.copyText([3000, 'fine']), d.copyText([1, 'twice'])]))
    assert.deepEqual([e.code, e.where], ['23505', `COPY ${things}, line 2`])
    const broken = async function* () {
      yield d.copyText([3001, 'given up'])
      throw new Error('given up')
    }
    assert.match((await d.error(pipeline(broken(), client.query(copy.from(`COPY ${things} (id, name) FROM STDIN`))))).message, /given up/)
    assert.deepEqual((await client.query(`SELECT count(*) FROM ${things}`)).rows, [{ count: '2000' }])
  }))

step('copy out', () =>
  using({}, async (client) => {
    const out = client.query(copy.to(`COPY (SELECT id, name FROM ${things} ORDER BY id) TO STDOUT`))
    const parts = []
    for await (const part of out) parts.push(part)
    assert.equal(Buffer.concat(parts).toString(), range(0, 2000).map((i) => d.copyText([i, d.awkward(i)])).join(''))
    const { rows } = await client.query(`SELECT id, name FROM ${things} ORDER BY id`)
    assert.deepEqual(rows, range(0, 2000).map((i) => ({ id: i, name: d.awkward(i) })))
  }))

// cancelled cancels a statement that runs, on a connection to this port, and shows that the session lives on.
const cancelled = (port) =>
  using({ port }, (client) =>
    using({}, async (other) => {
      const slow = `SELECT pg_sleep(60) FROM one -- ${d.name}`
      const running = d.error(client.query(slow))
      await d.until(async () => (await other.query('SELECT count(*)::int AS n FROM running WHERE query = $1', [slow])).rows[0].n === 1)
      // pg's own way. It has none with TLS, and needs to see its query as the active one.
      const query = client._getActiveQuery()
      assert.equal(query.text, slow)
      new Client(options({ port, ssl: false })).cancel(client, query)
      const e = await d.within(running)
      assert.deepEqual([e.code, e.message], ['57014', 'canceling statement due to user request'])
      assert.deepEqual(await notes(client, base + 2), [`note ${base + 2}`])
    }))

step('cancel', () => cancelled(d.port))

step('cancel through another node', () => cancelled(d.balancer))

step('listen', () =>
  using({}, (client) =>
    using({}, async (other) => {
      const arrived = new Promise((resolve) => client.once('notification', resolve))
      await client.query(`LISTEN ${d.name}`)
      await other.query(`NOTIFY ${d.name}, 'hello é'`)
      const { channel, payload } = await d.within(arrived)
      assert.deepEqual([channel, payload], [d.name, 'hello é'])
      await client.query(`UNLISTEN ${d.name}`)
    })))

step('errors', () =>
  using({}, async (client) => {
    let e = await d.error(client.query(insert, [base + 2, 1, '']))
    assert.deepEqual([e.code, e.constraint, e.table, e.detail], ['23505', 'orders_pkey', 'orders', `Key (customer_id, id)=(${base + 2}, 1) already exists.`])
    e = await d.error(client.query('SELCT 1'))
    assert.deepEqual([e.code, e.message, e.position], ['42601', 'syntax error at or near "SELCT"', '1'])
    e = await d.error(client.query('SELECT nothing FROM one WHERE n = $1', [1]))
    assert.deepEqual([e.code, e.position], ['42703', '8'])
    e = await d.error(client.query("UPDATE orders SET note = 'all' WHERE id = 0"))
    assert.equal(e.code, '0A000')
    assert.match(e.hint, /customer_id/)
    e = await d.error(client.query('SELECT note FROM orders WHERE customer_id = $1', ['not a number']))
    assert.equal(e.code, '22P02')
    const notices = []
    client.on('notice', (n) => notices.push(n.message))
    await client.query('DROP TABLE IF EXISTS not_there')
    assert.deepEqual(notices, ['table "not_there" does not exist, skipping'])
  }))

step('binary results', () =>
  using({}, async (client) => {
    // (What the driver makes of binary floats, timestamps and bytea is wrong, PostgreSQL itself or not.)
    const binary = await client.query({ text: 'SELECT id, true AS b, $2::int[] AS l, note, NULL AS n FROM orders WHERE customer_id = $1', binary: true, values: [base + 2, [1, 2, 3]] })
    assert.deepEqual(binary.fields.map((f) => f.format), Array(5).fill('binary'))
    assert.deepEqual(binary.rows, [{ id: 1, b: true, l: [1, 2, 3], note: `note ${base + 2}`, n: null }])
    const at = new Date('2024-02-29T12:00:00Z')
    const text = await client.query('SELECT 1.5::float8 AS f, $2::timestamptz AS t, $3::bytea AS d FROM orders WHERE customer_id = $1', [base + 2, at, Buffer.from([0, 255])])
    assert.deepEqual(text.rows, [{ f: 1.5, t: at, d: Buffer.from([0, 255]) }])
  }))

step("types of one's own", () =>
  using({}, async (client) => {
    const oids = new Set()
    for (const k of range(base + 400, base + 420)) {
      await client.query('INSERT INTO felt (customer_id, id, m, l, p) VALUES ($1, 1, $2, $3, $4)', [k, 'happy', ['sad', 'happy'], '(ok,7)'])
    }
    for (const k of range(base + 400, base + 420)) {
      const got = await client.query({ name: 'felt', text: 'SELECT m, l, p FROM felt WHERE customer_id = $1', values: [k] })
      assert.deepEqual(got.rows, [{ m: 'happy', l: '{sad,happy}', p: '(ok,7)' }])
      oids.add(got.fields.map((f) => f.dataTypeID).join())
    }
    const known = await client.query("SELECT array_to_string(ARRAY['mood'::regtype::oid, 'mood[]'::regtype::oid, 'feeling'::regtype::oid], ',') AS all")
    assert.deepEqual([...oids], [known.rows[0].all])
  }))

step('settings', () =>
  using({ statement_timeout: 12345 }, (client) =>
    using({}, async (other) => {
      const one = async (c, sql, values) => Object.values((await c.query(sql, values)).rows[0])
      assert.deepEqual(await one(client, 'SHOW statement_timeout'), ['12345ms'])
      await client.query(`CREATE SCHEMA ${d.name}_schema CREATE TABLE mine (v text)`)
      await client.query(`SET search_path = ${d.name}_schema, public`)
      await client.query("SET TIME ZONE 'Asia/Tokyo'")
      await client.query("INSERT INTO mine VALUES ('seen')")
      const settings = "SELECT current_setting('search_path') AS s, current_setting('TimeZone') AS t FROM orders WHERE customer_id = $1"
      for (const k of range(base + 2, base + 12)) {
        assert.deepEqual(await one(client, settings, [k]), [`${d.name}_schema, public`, 'Asia/Tokyo'])
        assert.deepEqual(await one(other, settings, [k]), ['"$user", public', 'UTC'])
      }
      assert.deepEqual(await one(client, 'SELECT v FROM mine'), ['seen'])
      await client.query('BEGIN')
      await client.query("SET LOCAL TIME ZONE 'Europe/Paris'")
      assert.deepEqual(await one(client, 'SHOW TimeZone'), ['Europe/Paris'])
      await client.query('COMMIT')
      assert.deepEqual(await one(client, 'SHOW TimeZone'), ['Asia/Tokyo'])
      await client.query('RESET ALL')
      assert.deepEqual(await one(client, 'SHOW search_path'), ['"$user", public'])
    })))

step('large values', () =>
  using({}, async (client) => {
    const text = 'é'.repeat(1 << 19)
    const data = crypto.randomBytes(1 << 20)
    for (const k of range(base + 300, base + 303)) {
      await client.query('INSERT INTO orders (customer_id, id, note, data) VALUES ($1, 1, $2, $3)', [k, text, data])
      const { rows } = await client.query('SELECT note, data FROM orders WHERE customer_id = $1', [k])
      assert.ok(rows.length === 1 && rows[0].note === text && rows[0].data.equals(data))
    }
  }))

step('eight connections', async () => {
  const pool = new Pool(options({ max: 8 }))
  try {
    await Promise.all(
      range(base + 1000, base + 1400).map(async (k) => {
        await pool.query(insert, [k, 1, `note ${k}`])
        assert.deepEqual(await notes(pool, k), [`note ${k}`])
      }),
    )
    assert.equal(pool.totalCount, 8)
    const client = await pool.connect() // a transaction on a client of the pool, beside others
    await client.query('BEGIN')
    await client.query("UPDATE orders SET note = 'in a transaction' WHERE customer_id = $1", [base + 1000])
    assert.deepEqual(await notes(pool, base + 1000), [`note ${base + 1000}`])
    await client.query('COMMIT')
    client.release()
    assert.deepEqual(await notes(pool, base + 1000), ['in a transaction'])
  } finally {
    await pool.end()
  }
})

d.main()
