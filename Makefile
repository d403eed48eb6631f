# Runs with GNU make 3.81 or newer and a POSIX shell. `make` alone lists the targets.
SHELL := /bin/sh
# The tests start a few hundred processes of Python: without bytecode each of them compiles the house anew.
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help
.PHONY: help docs run test ci ci-check ci-tools prove kit coverage chaos soak audit bench lint format types generate check lock wheel clean fuzz install install-dev install-sdks

PORT ?= 8080
BIN := .venv/bin
export PYTHON

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: install ## start the demo on 127.0.0.1: no key, no network (PORT=8080)
	@exec $(BIN)/gateway demo --port $(PORT)

test: lint types ## lint, types and the fast tests
	@$(BIN)/pytest -n 3 --dist loadfile -m "not slow" $(EXAMPLES)

# What is set here holds for `test` too: no property is shown its examples twice. pytest is last, so that the last line of
# the output has its counts.
ci: EXAMPLES := --hypothesis-profile=wide
ci: ci-check test ci-tools ## make test with more examples, then the slow tests: every large experiment in a small form
	@$(BIN)/pytest -n 2 $(EXAMPLES) -m "slow and not every_model"

ci-check:
	@scripts/ci_tools.sh check

ci-tools: install-sdks ## install what the tests of make ci use: Debian packages (as root) and packages of npm
	@scripts/ci_tools.sh

prove: install-sdks ## every large experiment in full, for hours (STEPS="properties kit chaos soak fuzz mutation")
	@scripts/prove.sh

kit: install-dev ## the kit's cases over every model of every adapter, of which make ci runs the ablest: five minutes
	@$(BIN)/pytest -n 2 -m every_model tests/conformance

coverage: install-dev ## the fast tests with branch coverage, 90 % or it fails; three times as slow
	@$(BIN)/pytest -n 2 --dist loadfile -m "not slow" --cov --cov-report=term

fuzz: install-dev ## atheris over every parser, a minute each: tests/fuzz/README.md (SECONDS_EACH=600 TARGETS="sse openai")
	@sh tests/fuzz/run.sh

chaos: install-dev ## 100,000 requests against providers that fail at random: ten minutes (ARGS="--requests 5000 --seed 1")
	@$(BIN)/python -m tests.chaos.run $(ARGS)

soak: install-dev ## a steady load for twenty minutes, and whether anything grows (ARGS="--minutes 2 --rate 50")
	@$(BIN)/python -m tests.soak.run $(ARGS)

audit: install-sdks ## known weaknesses of what is installed, by the index's advisories: needs the network
	@$(BIN)/pip-audit --require-hashes -r requirements.lock

bench: install ## what a request costs, beside others: bench/README.md (ARGS="--quick --only ours")
	@$(BIN)/python -m bench.run $(ARGS)

lint: install-dev ## ruff: rules and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: install-dev ## rewrite the code as ruff wants it
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: install-dev ## build the documentation site into site/ (ARGS=serve shows it while you write)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict --quiet)

types: install-dev ## mypy, strict, on both packages
	@$(BIN)/mypy gateway providers $(wildcard tests/typing)

generate: install-dev ## write every generated page and schema that is not current
	@$(BIN)/python -m scripts.generate

check: install ## compile config/gateway.yaml and report every mistake
	@$(BIN)/gateway check

lock: install ## write the three locks anew, keeping versions (UPGRADE=1 takes the newest)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

wheel: install-dev ## build the sdist, and from it the wheel, into dist/
	@$(BIN)/python -m build --no-isolation

clean: ## remove .venv, caches and builds
	@rm -rf .venv dist build site htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find gateway providers tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

install:
	@scripts/bootstrap.sh runtime

install-dev:
	@scripts/bootstrap.sh dev

install-sdks:
	@scripts/bootstrap.sh sdks
