# Provost. `make help` lists what there is; `make run` and `make test` set up all they need.

SHELL := /bin/bash
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help run build release test check schedules killed machines connections changes changes-systemd test-vm package mutants soak bench bench-systemd deny measure setup setup-test setup-vm fmt clean

CHANGES := whatever_dies_on_the_way_it_is_wholly_the_one_or_wholly_the_other

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup:
	@tests/setup run

setup-test:
	@tests/setup test

setup-vm:
	@tests/setup vm

build: setup ## debug binaries
	$(CARGO) build --locked

release: setup ## optimised binaries
	$(CARGO) build --locked --release

run: build ## the demo: real servers kept running from examples/quickstart/processes.yaml
	@examples/quickstart/run

check: setup-test ## formatting, lints
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

test: check ## everything that must hold
	$(CARGO) nextest run --locked --workspace
	$(CARGO) test --locked --workspace --doc
	$(MAKE) schedules
	PROVOST_SOAK_SEED=$${PROVOST_SOAK_SEED:-8} $(MAKE) soak PROVOST_SOAK_SECONDS=60

schedules: ## random fault schedules and killed supervisors of the core, in release mode
	PROVOST_SCHEDULES=$${PROVOST_SCHEDULES:-20000} \
		$(CARGO) test --locked --release -p provost-core --test schedules --test surviving

killed: setup-test ## the daemon killed at every call of a change, a rollback and an apply (6 minutes)
	$(CARGO) nextest run --locked --test daemon --run-ignored only --no-capture -E 'test(killed::at_every)'

machines: setup-test ## only what runs on real systems, Debian 12 and 13 (PROVOST_TEST_PACKAGE=DIR: with its provost.deb)
	$(CARGO) nextest run --locked --test machine

connections: setup-test ## 100,000 connections to a held socket while those that serve are replaced
	PROVOST_CONNECTIONS=$${PROVOST_CONNECTIONS:-100000} \
		$(CARGO) nextest run --locked --test conformance --no-capture native::nobody_is_refused

test-vm: setup-vm ## limits, lack of memory and a clock that is set, on an emulated machine (root; minutes; PROVOST_SCENARIOS=PART: others)
	$(CARGO) nextest run --locked --test conformance --run-ignored only --no-capture -E 'test(vm::)'

package: setup ## the Debian package, beside this directory
	dpkg-buildpackage -us -uc -b -d

mutants: ## mutation testing of the core (long)
	command -v cargo-mutants >/dev/null || $(CARGO) install --locked cargo-mutants
	PROVOST_SCHEDULES=$${PROVOST_SCHEDULES:-100} PROVOST_SHRINK=0 $(CARGO) mutants -p provost-core

deny: ## licences, bans and sources of dependencies
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check licenses bans sources

changes: setup-test ## random changes, of which half do not come up, with a daemon that is killed (ten minutes)
	PROVOST_CHANGES_SECONDS=$${PROVOST_CHANGES_SECONDS:-600} \
		$(CARGO) test --locked --test conformance -- --exact --nocapture native::$(CHANGES)

changes-systemd: setup-test ## the same on Debian 12 and 13, with the systemd backend (root; ten minutes each)
	PROVOST_SCENARIOS=$(CHANGES) PROVOST_CHANGES_SECONDS=$${PROVOST_CHANGES_SECONDS:-600} \
		$(CARGO) test --locked --test conformance -- --exact --nocapture --test-threads=1 \
		machines::debian_12 machines::debian_13

soak: setup-test ## random edits, commands and deaths, watched from outside (an hour)
	PROVOST_SOAK_SECONDS=$${PROVOST_SOAK_SECONDS:-3600} \
		$(CARGO) test --locked --test soak -- --ignored --nocapture

bench: setup ## what supervision costs, beside what it must cost (and others: PROVOST_BENCH_PEERS=1)
	$(CARGO) bench --locked --bench supervision

bench-systemd: setup-test ## what the systemd backend costs, beside systemd alone, on Debian 12 and 13 (root)
	$(CARGO) bench --locked --bench systemd

measure: setup-test ## what starting a process costs, beside a bare posix_spawn; answers in a storm
	$(CARGO) nextest run --locked --release --test native --run-ignored only --no-capture measure
	$(CARGO) nextest run --locked --release --test crowd --run-ignored only --no-capture measure

fmt: ## formats
	$(CARGO) fmt --all

clean: ## removes what was built
	$(CARGO) clean
