# Needs GNU make 3.81 or newer and a POSIX shell. `make` without a target lists the targets.
SHELL := /bin/sh
# The tests start a few hundred processes of Python: without cached bytecode each would compile all modules again.
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help
.PHONY: help docs docs-pictures run quick test test-later select ci ci-check ci-tools prove report kit coverage chaos chaos-cell soak audit bench facts lint format types generate check lock lock-diff dist release clean fuzz install install-dev install-sdks

PORT ?= 8080
BIN := .venv/bin
export PYTHON

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: install ## start the demo on 127.0.0.1, without keys or network (PORT=8080)
	@exec $(BIN)/gateway demo --port $(PORT)

# mypy takes a minute of a core in a new clone. It reads the tests too: a name that is gone shows there.
test: lint ## run lint, types and the fast tests
	@$(BIN)/python -m tests.parallel.run -n 5 --also $(BIN)/mypy -m "not slow" $(CI_OPTIONS)

PURE := tests/providers $(addprefix tests/gateway/,model policy config usage execution telemetry api/dialects)

quick: install-dev ## run the fast tests of the pure parts in less than a minute, while you write
	@$(BIN)/python -m tests.parallel.run -n 2 -m "not slow" --hypothesis-profile=quick --ignore-glob='*valkey*' --ignore-glob='*process*' $(PURE)

test-later: install-dev ## run the fast tests with the clock at noon of 2027-06-30 (ARGS=--facts: those that read facts and a clock)
	@$(BIN)/python -m tests.later.run $(ARGS)

select: install-dev ## choose again which tests are in make test and which only in make ci: five minutes
	@$(BIN)/python -m tests.selection.run

# CI_OPTIONS applies to `test` too, so that no property runs twice. tests/conftest.py lists the tests that may run once more, and
# why; the summary names those that did. A fast test that takes 6 s of CPU fails: the limit is 0.25 s (tests/selection), but here with
# more examples and on a busy machine. Slow tests wait more than they compute, so four more processes run them while a core is idle. The tests are
# last, so that the last line of the output has their counts, as pytest writes them.
ci: CI_OPTIONS := --hypothesis-profile=wide --most-cpu 6
ci: ARGS := --facts
ci: ci-check test ci-tools test-later ## run make test with more examples, then the slow tests: every large experiment in a small form
	@$(BIN)/python -m tests.parallel.run -n 2+4 $(CI_OPTIONS) -m "slow and not full"

ci-check:
	@scripts/ci_tools.sh check

ci-tools: install-sdks ## install the tools of make ci: Debian packages (as root) and npm packages
	@scripts/ci_tools.sh

prove: install-sdks ## run every large experiment in full, for hours (STEPS="properties later ledger evidence accounts quotas restarts streams console full kit servers answers chaos chaos-cell soak redaction fuzz evaluation bounds mutation")
	@scripts/prove.sh

report: install-sdks ## write the conformance report, docs/prove/report.md and report.json: hours, or half an hour with ARGS=--small
	@$(BIN)/python -m scripts.report $(ARGS)

kit: install-dev ## run the conformance kit for every model of every adapter: five minutes
	@$(BIN)/pytest -n 2 -m full tests/conformance

coverage: install-dev ## run the fast tests with branch coverage; fails below 90 %
	@$(BIN)/pytest -n 2 --dist loadfile -m "not slow" --cov --cov-report=term

fuzz: install-dev ## fuzz every parser with atheris, a minute each: tests/fuzz/README.md (SECONDS_EACH=600 TARGETS="sse openai")
	@sh tests/fuzz/run.sh

chaos: install-dev ## send 100,000 requests to randomly failing providers: ten minutes (ARGS="--requests 5000 --seed 1")
	@$(BIN)/python -m tests.chaos.run $(ARGS)

chaos-cell: install-dev ## inject faults into a cell of three instances under load, and judge its history: two minutes; needs root (ARGS="--seconds 7200 --seed 1")
	@$(BIN)/python -m tests.chaos.cell $(ARGS)

soak: install-dev ## run a steady load for twenty minutes and check that no resource grows (ARGS="--minutes 2 --rate 50")
	@$(BIN)/python -m tests.soak.run $(ARGS)

audit: install-sdks ## check the dependencies for known vulnerabilities; needs the network
	@$(BIN)/pip-audit --require-hashes -r locks/runtime.lock

bench: install ## measure the cost of a request, compared with other proxies: bench/README.md (ARGS="--quick --only ours")
	@$(BIN)/python -m bench.run $(ARGS)
	@$(BIN)/python -m bench.dialects

facts: install-dev ## list the facts that end within 180 days or were read long ago; fails for one that has ended
	@$(BIN)/python -m scripts.facts

lint: install-dev ## check rules and formatting with ruff
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: install-dev ## format the code with ruff
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: install-dev ## build the documentation site into site/ (ARGS=serve for a live preview)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict --quiet)

docs-pictures: install-sdks ## take the pictures of the console for README.md and docs/ with Chromium; look at each
	@$(BIN)/python -m scripts.docs_pictures

types: install-dev ## check the code with mypy in strict mode
	@$(BIN)/mypy

generate: install-dev ## update the generated pages and schemas
	@$(BIN)/python -m scripts.generate

check: install ## compile config/gateway.yaml and report every error
	@$(BIN)/gateway check

lock: install ## update the five lock files in locks/, keeping versions (UPGRADE=1 takes the newest)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

lock-diff: install-dev ## show what a change of the locks brings: versions, native code, entry points, .pth files (FROM=main); needs the network
	@$(BIN)/python -m scripts.lock_diff $(or $(FROM),HEAD)

dist: install-sdks ## build wheel, sdist, locked packages, SBOM, provenance and checksums of this checkout into dist/ (KEY=release.pem)
	@$(BIN)/python -m scripts.release --dist $(if $(KEY),--key "$(KEY)")

release: install-sdks ## make a release of a clean checkout: changelog, version, files, commit, tag, signature (VERSION=0.2.0 KEY=release.pem)
	@$(BIN)/python -m scripts.release "$(VERSION)" $(if $(KEY),--key "$(KEY)")

clean: ## remove .venv, caches and builds
	@rm -rf .venv dist build site htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find evaluation gateway providers tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

install:
	@scripts/bootstrap.sh runtime

install-dev:
	@scripts/bootstrap.sh dev

install-sdks:
	@scripts/bootstrap.sh sdks
