// What the Node programs share: where to connect, and the steps.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')

const env = process.env
const base = Number(env.BASE) // the first key of this driver's own
const tests = []
const failed = []

// step adds a step. The steps after a failed one are tried too.
const step = (name, run) => tests.push([name, run])

async function main() {
  for (const [name, run] of tests) {
    try {
      await run()
      console.log('ok', name)
    } catch (e) {
      failed.push(name)
      console.log('FAILED', name)
      console.log(e)
    }
  }
  if (failed.length) console.log('failed:', failed.join(', '))
  process.exit(failed.length ? 1 : 0)
}

// error is what a promise is rejected with.
async function error(promise) {
  let value
  try {
    value = await promise
  } catch (e) {
    return e
  }
  throw new Error('no error but ' + JSON.stringify(value))
}

// until waits until the condition holds.
async function until(condition) {
  const deadline = Date.now() + 20000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('waited 20 s in vain')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

// within is the promise, or an error when it takes too long.
function within(promise) {
  let timer
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error('waited 20 s in vain')), 20000)))
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// awkward is a text with whatever COPY's text format has to escape; null now and then.
const awkward = (i) => (i % 10 === 9 ? null : `${i}\ttab \\ back\\nslash \\. \r return \n line 'quote' "double", é 東 \u{1f600}`)

// copyText is a row in COPY's text format.
const copyText = (values) =>
  values
    .map((v) => (v === null ? '\\N' : String(v).replace(/[\\\t\r\n]/g, (c) => ({ '\\': '\\\\', '\t': '\\t', '\r': '\\r', '\n': '\\n' })[c])))
    .join('\t') + '\n'

const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i)

module.exports = {
  assert, step, main, error, until, within, awkward, copyText, range, base,
  name: env.NAME,
  things: 'things_' + env.NAME, // this driver's own table, on one shard
  host: env.PGHOST,
  port: Number(env.PGPORT),
  balancer: Number(env.BALANCER_PORT),
  user: env.PGUSER,
  password: env.PGPASSWORD,
  database: env.PGDATABASE,
  root: fs.readFileSync(env.PGSSLROOTCERT, 'utf8'),
  wrongRoot: fs.readFileSync(env.WRONG_ROOT, 'utf8'),
}

// The drivers take settings from libpq's variables too, some of them differently: here each is told all of them.
for (const key of Object.keys(env)) if (key.startsWith('PG')) delete env[key]
