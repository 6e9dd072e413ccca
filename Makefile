# The commands of the house. `make help` lists them; each one sets up what it needs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PYTHON_READY := .venv/.ready
NODE_READY := node_modules/.ready
CODEX := tests/flows/code_mode/codex
CODEX_READY := $(CODEX)/node_modules/.ready
PGBOUNCER_READY := build/pgbouncer/.ready

export SOAK_SECONDS ?= 600
# pytest keeps the tests that it has compiled, where an environment does not forbid it: 8 s for each of its processes.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

# A set-up that lost its interpreter, or was moved with its tree, is no set-up.
$(shell test -x $(BIN)/python && grep -qsxF '$(CURDIR)' $(PYTHON_READY) || rm -f $(PYTHON_READY))
$(shell test -x node_modules/.bin/bun || rm -f $(NODE_READY))

.PHONY: help demo test check fix bench soak lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(PYTHON_READY) $(NODE_READY) ## Run the demo: everything set up, nothing to configure
	$(BIN)/stepwell demo

# Most tests wait for something, so four at once keep two cores busy. What stores have in common runs on the newest
# PostgreSQL, and on the oldest that is here.
# No test starts after 10 minutes and none lasts over 2 (pyproject): 12 in total.
test: $(PYTHON_READY) $(NODE_READY) $(CODEX_READY) $(PGBOUNCER_READY) ## Run all tests but the soak; ARGS="tests/x.py -k name" narrows
	$(PYTEST) -m "not soak" -n 4 --dist worksteal --durations=10 --session-timeout=600 $(ARGS)
	$(if $(ARGS),,STEPWELL_TEST_POSTGRES=oldest $(PYTEST) -m "not soak" -k postgres -n 4 tests/conformance)

check: $(PYTHON_READY) ## Lint, format, types, import order, rules of the house
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/house.py

fix: $(PYTHON_READY) ## Repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(PYTHON_READY) $(NODE_READY) ## Measure, next to the floor and to peers; ARGS go to the bench
	$(BIN)/python -m bench $(ARGS)

soak: $(PYTHON_READY) $(NODE_READY) $(PGBOUNCER_READY) ## Run the long tests, each for SOAK_SECONDS (600)
	$(PYTEST) -m soak --timeout=$$((SOAK_SECONDS + 120)) $(ARGS) \
	  || { code=$$?; (( code == 5 )) && echo "soak: no test carries the marker yet"; }

lock: ## Pin what pyproject.toml and package.json ask for; ARGS=--upgrade takes newer ones (needs uv)
	for kind in run dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --all-extras \
	    $$([[ $$kind = run ]] || echo --group dev --constraint requirements/run.txt) $(ARGS) \
	    --output-file requirements/$$kind.txt pyproject.toml; \
	done
	for folder in . $(CODEX); do \
	  npm install --prefix $$folder --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund; \
	done

clean: ## Remove all that these commands made
	rm -rf .venv node_modules $(CODEX)/node_modules dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find src tests bench scripts examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(PYTHON_READY): requirements/dev.txt pyproject.toml scripts/setup
	scripts/setup

# npm begins by removing node_modules. Newer npm holds back install scripts, so bun's own is named here.
$(NODE_READY): package.json package-lock.json
	@command -v npm >/dev/null || { echo "set-up: Stepwell's demo and tests need Node.js with npm; install it" >&2; exit 1; }
	npm ci --ignore-scripts --no-audit --no-fund
	node node_modules/bun/install.js
	node_modules/.bin/bun --version
	touch $@

# Only tests need it, and it is large; so whoever sees the demo does not fetch it.
$(CODEX_READY): $(CODEX)/package.json $(CODEX)/package-lock.json
	npm ci --prefix $(CODEX) --ignore-scripts --no-audit --no-fund
	touch $@

# Without an installation: where it is installed, that one is used.
$(PGBOUNCER_READY): scripts/unpack
	if command -v pgbouncer >/dev/null; then mkdir -p $(@D) && touch $@; else scripts/unpack $(@D) pgbouncer; fi
