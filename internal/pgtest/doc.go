// Package pgtest runs real PostgreSQL servers for tests, the demo and the benchmarks, and a scripted fake one.
//
// A Farm owns a temporary folder and every server in it. A primary is a fresh initdb (so each has a system identifier of
// its own, as in production), a replica is a pg_basebackup that streams. Servers can be killed, frozen, restarted and
// promoted, and none outlives the process that started it: not after a panic, not after SIGKILL.
//
// A missing PostgreSQL is an error that says how to get one, never a reason to skip: a test that did not run must not look
// like one that passed.
//
// The package knows PostgreSQL and the operating system, and nothing of Rangefinder, so that every other package's tests may
// use it. It runs on Linux only: it reads /proc and relies on the kernel's parent-death signal.
package pgtest
