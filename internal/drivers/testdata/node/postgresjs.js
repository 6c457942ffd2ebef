// postgres.js (npm postgres). It prepares every statement, and sends the next ones without waiting for the answers.
'use strict'

const crypto = require('node:crypto')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const postgres = require('postgres')
const d = require('./driver.js')
const { assert, step, base, things, range } = d

// using runs a function with a pool of its own, of one connection if nothing else is said.
async function using(o, run) {
  const sql = postgres({
    host: d.host, port: d.port, user: d.user, password: d.password, database: d.database, ssl: { ca: d.root }, max: 1, onnotice: () => {}, ...o,
    connection: { application_name: d.name, ...o.connection },
  })
  try {
    return await run(sql)
  } finally {
    await sql.end()
  }
}

const insert = (sql, k, id, note) => sql`INSERT INTO orders (customer_id, id, note) VALUES (${k}, ${id}, ${note})`
const notes = async (sql, k) => (await sql`SELECT note FROM orders WHERE customer_id = ${k} ORDER BY id`).map((r) => r.note)

step('connect', async () => {
  await using({}, async (sql) => assert.deepEqual([...(await sql`SELECT 42 AS v`)], [{ v: 42 }]))
  await using({ sslnegotiation: 'direct', ssl: { ca: d.root, ALPNProtocols: ['postgresql'] } }, async (sql) => assert.equal((await sql`SELECT 42 AS v`)[0].v, 42))
  const e = await d.error(using({ ssl: { ca: d.wrongRoot } }, (sql) => sql`SELECT 1`))
  assert.match(e.message, /certificate|self-signed/)
  assert.equal((await d.error(using({ password: 'wrong' }, (sql) => sql`SELECT 1`))).code, '28P01')
})

step('rows by key', () =>
  using({}, async (sql) => {
    await sql`CREATE TABLE ${sql(things)} (id int PRIMARY KEY, name text)`
    for (const k of range(base, base + 40)) assert.equal((await insert(sql, k, 1, `note ${k}`)).count, 1)
    for (const k of range(base, base + 40)) {
      assert.deepEqual(await notes(sql, k), [`note ${k}`])
      assert.deepEqual([...(await sql.unsafe(`SELECT customer_id, note FROM orders WHERE customer_id = ${k}`))], [{ customer_id: String(k), note: `note ${k}` }])
    }
    assert.deepEqual([...(await sql`UPDATE orders SET note = 'changed' WHERE customer_id = ${base} RETURNING id`)], [{ id: 1 }])
    assert.equal((await sql`DELETE FROM orders WHERE customer_id = ${base + 1}`).count, 1)
    assert.deepEqual(await notes(sql, base), ['changed'])
    assert.deepEqual(await notes(sql, base + 1), [])
  }))

step('transactions', () =>
  using({}, async (sql) => {
    const k = base + 100
    await sql.begin(async (tx) => {
      await insert(tx, k, 1, 'committed')
      assert.deepEqual(await notes(tx, k), ['committed'])
    })
    const stop = new Error('stop')
    const e = await d.error(
      sql.begin('isolation level serializable', async (tx) => {
        await insert(tx, k, 2, 'rolled back')
        assert.deepEqual(await notes(tx, k), ['committed', 'rolled back'])
        throw stop
      }),
    )
    assert.equal(e, stop)
    assert.deepEqual(await notes(sql, k), ['committed'])
    const first = await d.error(
      sql.begin(async (tx) => {
        await insert(tx, k, 3, 'before the error')
        assert.equal((await d.error(tx`SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = ${k}`)).code, '22012')
        assert.equal((await d.error(notes(tx, k))).code, '25P02')
      }),
    )
    assert.equal(first.code, '22012')
    assert.deepEqual(await notes(sql, k), ['committed'])
    await sql.begin(async (tx) => {
      await insert(tx, k, 4, 'kept')
      const e = await d.error(
        tx.savepoint(async (sp) => {
          await insert(sp, k, 5, 'undone')
          await insert(sp, k, 4, 'twice')
        }),
      )
      assert.equal(e.code, '23505')
      await insert(tx, k, 6, 'kept too')
    })
    assert.deepEqual(await notes(sql, k), ['committed', 'kept', 'kept too'])
  }))

step('a prepared statement', () =>
  using({}, async (sql) => {
    for (const i of range(0, 200)) {
      const k = base + 2 + (i % 38)
      assert.deepEqual(await notes(sql, k), [`note ${k}`])
    }
  }))

step('many prepared statements', () =>
  using({}, async (sql) => {
    for (const turn of range(0, 3)) {
      for (const i of range(0, 30)) {
        const k = base + 2 + ((i + turn) % 38)
        const rows = await sql.unsafe(`SELECT note, ${i} AS i FROM orders WHERE customer_id = $1`, [k], { prepare: true })
        assert.deepEqual([...rows], [{ note: `note ${k}`, i }])
      }
    }
  }))

step('batches', () =>
  using({}, async (sql) => {
    // All of these are under way on one connection before the first is answered.
    await Promise.all(range(0, 300).map((i) => sql`INSERT INTO ${sql(things)} VALUES (${i}, ${`thing ${i}`})`))
    const keys = range(base + 2, base + 40)
    assert.deepEqual(await Promise.all(keys.map((k) => notes(sql, k))), keys.map((k) => [`note ${k}`]))
    const results = await Promise.allSettled([
      sql`UPDATE ${sql(things)} SET name = 'first' WHERE id = 1`,
      sql`INSERT INTO ${sql(things)} VALUES (1, 'twice')`,
      sql`UPDATE ${sql(things)} SET name = name || ' and third' WHERE id = 1`,
    ])
    assert.deepEqual(results.map((r) => r.reason?.code ?? r.value.count), [1, '23505', 1])
    assert.equal((await sql`SELECT name FROM ${sql(things)} WHERE id = 1`)[0].name, 'first and third')
    const inOne = await sql.begin((tx) => range(0, 50).map((i) => insert(tx, base + 200, i, 'many')))
    assert.equal(inOne.length, 50)
    const rows = range(500, 700).map((id) => ({ id, name: `thing ${id}` }))
    assert.equal((await sql`INSERT INTO ${sql(things)} ${sql(rows)}`).count, 200)
    assert.deepEqual((await sql`SELECT 1 AS v; SELECT 2 AS v`.simple()).map((r) => r[0].v), [1, 2])
    let got = []
    for await (const part of sql`SELECT i FROM one, generate_series(1, ${1000}::int) i`.cursor(70)) got = got.concat(part.map((r) => r.i))
    assert.deepEqual(got, range(1, 1001))
    await sql`SELECT i FROM one, generate_series(1, ${1000}::int) i`.cursor(10, () => sql.CLOSE)
    assert.deepEqual(await notes(sql, base + 2), [`note ${base + 2}`])
  }))

step('copy in', () =>
  using({}, async (sql) => {
    const copyIn = async (rows) => pipeline(Readable.from(rows), await sql`COPY ${sql(things)} (id, name) FROM STDIN`.writable())
    await sql`TRUNCATE ${sql(things)}`
    await copyIn(range(0, 2000).map((i) => d.copyText([i, d.awkward(i)])))
    // (An error of the server in a COPY never reaches the stream of this driver, PostgreSQL itself or not.)
    assert.equal((await sql`SELECT count(*)::int AS n FROM ${sql(things)}`)[0].n, 2000)
  }))

step('copy out', () =>
  using({}, async (sql) => {
    const parts = []
    for await (const part of await sql`COPY (SELECT id, name FROM ${sql(things)} ORDER BY id) TO STDOUT`.readable()) parts.push(part)
    assert.equal(Buffer.concat(parts).toString(), range(0, 2000).map((i) => d.copyText([i, d.awkward(i)])).join(''))
    const rows = await sql`SELECT id, name FROM ${sql(things)} ORDER BY id`
    assert.deepEqual([...rows], range(0, 2000).map((i) => ({ id: i, name: d.awkward(i) })))
  }))

// cancelled cancels a statement that runs, on a connection to this port, and shows that the session lives on.
const cancelled = (port) =>
  using({ port }, (sql) =>
    using({}, async (other) => {
      const slow = `SELECT pg_sleep(60) FROM one -- ${d.name}`
      await sql`SELECT 1` // it is connected: the next connection to a balancer is that of the cancel request
      const query = sql.unsafe(slow)
      const running = d.error(query)
      await d.until(async () => (await other`SELECT count(*)::int AS n FROM running WHERE query = ${slow}`)[0].n === 1)
      query.cancel()
      const e = await d.within(running)
      assert.deepEqual([e.code, e.message], ['57014', 'canceling statement due to user request'])
      assert.deepEqual(await notes(sql, base + 2), [`note ${base + 2}`])
    }))

step('cancel', () => cancelled(d.port))

step('cancel through another node', () => cancelled(d.balancer))

step('listen', () =>
  using({}, async (sql) => {
    let arrive
    const arrived = new Promise((resolve) => (arrive = resolve))
    const { unlisten } = await sql.listen(d.name, arrive) // on a connection of its own
    await sql.notify(d.name, 'hello é')
    assert.equal(await d.within(arrived), 'hello é')
    await unlisten()
  }))

step('errors', async () => {
  const notices = []
  await using({ onnotice: (n) => notices.push(n.message) }, async (sql) => {
    let e = await d.error(insert(sql, base + 2, 1, ''))
    assert.deepEqual([e.code, e.constraint_name, e.table_name, e.detail], ['23505', 'orders_pkey', 'orders', `Key (customer_id, id)=(${base + 2}, 1) already exists.`])
    e = await d.error(sql`SELCT 1`)
    assert.deepEqual([e.code, e.message, e.position], ['42601', 'syntax error at or near "SELCT"', '1'])
    e = await d.error(sql`SELECT nothing FROM one WHERE n = ${1}`)
    assert.deepEqual([e.code, e.position], ['42703', '8'])
    e = await d.error(sql`UPDATE orders SET note = 'all' WHERE id = 0`)
    assert.equal(e.code, '0A000')
    assert.match(e.hint, /customer_id/)
    await sql`DROP TABLE IF EXISTS not_there`
    assert.deepEqual(notices, ['table "not_there" does not exist, skipping'])
  })
})

step('settings', () =>
  using({ connection: { statement_timeout: 12345 } }, (sql) =>
    using({}, async (other) => {
      const one = async (query) => Object.values((await query)[0])
      assert.deepEqual(await one(sql`SHOW statement_timeout`), ['12345ms'])
      await sql`CREATE SCHEMA ${sql(d.name + '_schema')} CREATE TABLE mine (v text)`
      await sql.unsafe(`SET search_path = ${d.name}_schema, public`)
      await sql`SET TIME ZONE 'Asia/Tokyo'`
      await sql`INSERT INTO mine VALUES ('seen')`
      const settings = (sql, k) => sql`SELECT current_setting('search_path') AS s, current_setting('TimeZone') AS t FROM orders WHERE customer_id = ${k}`
      for (const k of range(base + 2, base + 12)) {
        assert.deepEqual(await one(settings(sql, k)), [`${d.name}_schema, public`, 'Asia/Tokyo'])
        assert.deepEqual(await one(settings(other, k)), ['"$user", public', 'UTC'])
      }
      assert.deepEqual(await one(sql`SELECT v FROM mine`), ['seen'])
      await sql.begin(async (tx) => {
        await tx`SET LOCAL TIME ZONE 'Europe/Paris'`
        assert.deepEqual(await one(tx`SHOW TimeZone`), ['Europe/Paris'])
      })
      assert.deepEqual(await one(sql`SHOW TimeZone`), ['Asia/Tokyo'])
      assert.equal(sql.parameters.TimeZone, 'Asia/Tokyo')
      await sql`RESET ALL`
      assert.deepEqual(await one(sql`SHOW search_path`), ['"$user", public'])
    })))

step('large values', () =>
  using({}, async (sql) => {
    const text = 'é'.repeat(1 << 19)
    const data = crypto.randomBytes(1 << 20)
    for (const k of range(base + 300, base + 303)) {
      await sql`INSERT INTO orders (customer_id, id, note, data) VALUES (${k}, 1, ${text}, ${data})`
      const rows = await sql`SELECT note, data FROM orders WHERE customer_id = ${k}`
      assert.ok(rows.length === 1 && rows[0].note === text && rows[0].data.equals(data))
    }
  }))

step('eight connections', () =>
  using({ max: 8 }, async (sql) => {
    await Promise.all(
      range(base + 1000, base + 1400).map(async (k) => {
        await insert(sql, k, 1, `note ${k}`)
        assert.deepEqual(await notes(sql, k), [`note ${k}`])
      }),
    )
  }))

d.main()
