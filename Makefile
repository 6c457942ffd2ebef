# Rangefinder. `make` alone lists the targets below.

# Arguments of `make demo`: DEMO_FLAGS=--once ends by itself.
DEMO_FLAGS ?=
# Time for each fuzz target of `make fuzz`.
FUZZTIME ?= 20s
# Time for `make soak`.
SOAK ?= 30m
# Time for `make chaos`, and further flags for it: CHAOS_FLAGS='-seed 7 -v'.
CHAOS ?= 10m
CHAOS_FLAGS ?=
# What the statements of `make oracle` are generated from, and how many.
ORACLE_SEED ?= $(shell date +%s)
ORACLE_N ?= 20000
# For how long each load of `make tpcc` has servers and nodes killed, and what it is drawn from.
TPCC ?= 3m
TPCC_SEED ?= $(shell date +%s)
# Further flags for go test, for example TESTFLAGS='-v -run Session'.
TESTFLAGS ?=
# Packages for test, race and check.
PKGS ?= ./...

GO ?= go
# Tests start PostgreSQL servers and measure time: not more packages at once than two.
TEST = $(GO) test -p 2

# The end of a recipe: installs the Debian packages that the shell variable missing names, quietly if there are none.
INSTALL = \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "missing, and this is no Debian; install what these packages hold:$$missing" >&2; exit 1; fi; \
	as=; \
	if [ "$$(id -u)" != 0 ]; then \
		command -v sudo >/dev/null || { echo "missing: as root, apt-get install$$missing" >&2; exit 1; }; \
		as=sudo; \
	fi; \
	echo "installing with apt-get:$$missing"; \
	$$as apt-get -qq update; \
	$$as env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends$$missing

.DEFAULT_GOAL := help
.PHONY: help build test race fuzz bench soak chaos oracle tpcc check demo pgxsuite postgres peers drivers compiler clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: compiler ## build bin/rangefinder
	$(GO) build -trimpath -o bin/rangefinder .

test: compiler postgres drivers ## run all tests (installs PostgreSQL and its clients if they are missing)
	$(TEST) -timeout 60m $(TESTFLAGS) $(PKGS)

# Packages with virtual time on one processor each: there two timers that are due at once can be run by two threads under the detector's one context for them,
# which it does not survive (Go 1.26: "CHECK failed: tsan_rtl.cpp", or SIGSEGV in raceacquirectx).
race: compiler postgres drivers ## run all tests under the race detector
	@set -e; list="$$($(GO) list -f '{{.ImportPath}} {{.Imports}} {{.TestImports}} {{.XTestImports}}' $(PKGS))"; \
	virtual=$$(echo "$$list" | awk '/testing\/synctest/ { print $$1 }'); \
	others=$$(echo "$$list" | awk '!/testing\/synctest/ { print $$1 }'); \
	status=0; \
	if [ -n "$$others" ]; then $(TEST) -race -timeout 60m $(TESTFLAGS) $$others || status=$$?; fi; \
	if [ -n "$$virtual" ]; then $(TEST) -race -cpu 1 -timeout 60m $(TESTFLAGS) $$virtual || status=$$?; fi; \
	exit $$status

fuzz: compiler ## run every fuzz target for FUZZTIME (20s)
	@set -e; \
	for dir in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' $$dir | grep '^Fuzz'); do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

bench: compiler postgres ## run the benchmarks, and pgbench through a node beside PostgreSQL alone
	$(GO) run ./bench fib
	$(GO) test -run '^$$' -bench . -benchmem ./fib ./wire/sqlkey
	$(GO) run ./bench

soak: compiler postgres ## 1000 clients on a node for SOAK (30m): they query, cancel, die and come back; fails if anything leaks
	$(GO) run ./bench soak -time $(SOAK)

chaos: compiler postgres ## nodes and servers in networks of their own, random faults for CHAOS (10m), histories checked; wants root
	@set -e; missing=; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	command -v nft >/dev/null || [ -x /usr/sbin/nft ] || missing="$$missing nftables"; \
	$(INSTALL)
	PATH=$$PATH:/usr/sbin $(GO) run ./bench chaos -time $(CHAOS) $(CHAOS_FLAGS)

# The last line is the program's own, so it is not run by go test.
oracle: compiler postgres ## ask ORACLE_N (20,000) generated statements of a sharded schema and of one plain PostgreSQL
	@mkdir -p bin
	$(GO) test -c -o bin/sqloracle.test ./internal/sqloracle
	@cd internal/sqloracle && ../../bin/sqloracle.test -test.timeout 0 -test.v -test.run 'TestOracle/generated' -oracle.seed $(ORACLE_SEED) -oracle.n $(ORACLE_N)

tpcc: compiler postgres ## TPC-C's and TPC-B's loads through three nodes, while nodes and servers are killed for TPCC (3m) each; then all must add up
	$(GO) test -count=1 -timeout 0 -v -run '^TestTPC[BC]$$' ./node -tpcc.time $(TPCC) -tpcc.seed $(TPCC_SEED)

# What `go run ./bench compare` compares with. What cannot be had is left out of its tables, with a line that says so.
peers: postgres ## install PgBouncer, HAProxy and Pgpool for go run ./bench compare, if they are missing
	@set -e; missing=; \
	for pair in pgbouncer:pgbouncer haproxy:haproxy pgpool:pgpool2; do \
		program=$${pair%:*}; \
		if ! command -v $$program >/dev/null && [ ! -x /usr/sbin/$$program ]; then missing="$$missing $${pair#*:}"; fi; \
	done; \
	$(INSTALL)

pgxsuite: compiler postgres ## pgx's own test suite through a node, beside PostgreSQL alone
	$(GO) run ./internal/pgxsuite $(PGXFLAGS)

# The clients that internal/drivers runs. Debian's Python packages work with Debian's Python alone. npm's go into bin/drivers, at the
# versions of the lock file.
drivers: postgres ## install the Postgres clients that the tests run, if they are missing
	@set -e; missing=; \
	/usr/bin/python3 -c 'import psycopg' 2>/dev/null || missing="$$missing python3-psycopg"; \
	/usr/bin/python3 -c 'import asyncpg' 2>/dev/null || missing="$$missing python3-asyncpg"; \
	/usr/bin/python3 -c 'import psycopg2, sqlalchemy' 2>/dev/null || missing="$$missing python3-psycopg2 python3-sqlalchemy"; \
	command -v node >/dev/null && command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	command -v javac >/dev/null || missing="$$missing default-jdk-headless"; \
	[ -e /usr/share/java/postgresql.jar ] || missing="$$missing libpostgresql-jdbc-java"; \
	$(INSTALL)
	@set -e; cd internal/drivers/testdata/node; to=$(CURDIR)/bin/drivers; \
	if cmp -s package-lock.json $$to/package-lock.json && [ -e $$to/node_modules/.package-lock.json ]; then exit 0; fi; \
	echo "installing npm packages into bin/drivers"; \
	rm -rf $$to; mkdir -p $$to; cp package.json package-lock.json $$to; \
	cd $$to && npm ci --ignore-scripts --no-audit --no-fund --silent

check: compiler ## format, go.mod, vet, staticcheck, revive, house rules; any output of the first two is a failure
	@out="$$(gofmt -l .)"; if [ -n "$$out" ]; then echo "gofmt -w would change:"; echo "$$out"; exit 1; fi
	@out="$$($(GO) tool goimports -local rangefinder -l .)"; if [ -n "$$out" ]; then echo "goimports -local rangefinder -w would change:"; echo "$$out"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck $(PKGS)
	$(GO) tool revive -config .revive.toml -formatter friendly -set_exit_status $(PKGS)
	$(GO) test -count=1 ./internal/house

demo: build postgres ## three regions on this machine: see bytes go to the closest copy, and a replica die
	bin/rangefinder demo $(DEMO_FLAGS)

clean: ## remove what the other targets built
	rm -rf bin
	$(GO) clean -testcache

# PostgreSQL's parser is C code, so a compiler is needed.
compiler:
	@command -v $(GO) >/dev/null || { echo "Go is missing: see https://go.dev/doc/install" >&2; exit 1; }
	@command -v "$$($(GO) env CC)" >/dev/null || { echo "a C compiler is missing: apt-get install gcc libc6-dev" >&2; exit 1; }

# A PostgreSQL server, found as internal/pgtest finds it. Nothing is installed if there is one.
postgres:
	@set -e; \
	for initdb in /usr/lib/postgresql/*/bin/initdb "$$(command -v initdb || true)"; do \
		if [ -x "$$initdb" ]; then exit 0; fi; \
	done; \
	missing=" postgresql"; \
	$(INSTALL)
