# Verbs of the house; `make help` lists them. Each verb sets up what it needs, in .venv, once.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help setup demo test check lint typecheck imports wheel bench startbench starts serve clean

# The first interpreter that really starts and is new enough; a version manager may leave names that do not.
# Looked for only when it is needed, and once.
PYTHON ?= $(eval PYTHON := $$(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$$$p; break; }; done))$(PYTHON)
BIN := .venv/bin
ROOMS := hooks service migrations tests
# One line that counts packages instead of pip's hundreds; its warnings are kept, and shown if it fails.
PIP_INSTALL = set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	-c constraints.txt -e '.[$(1)]' 2> .venv/pip.log | awk -v tty=$$([ -t 1 ] && echo 1 || echo 0) '\
	/^(Collecting|Processing) / { n++; if (tty) { printf "\r\033[K  %d packages: %.50s", n, $$2; fflush() } } \
	/^Installing collected/ { printf "%s  writing %d packages …\n", tty ? "\r\033[K" : "", split($$0, _, ","); fflush() }' \
	|| { cat .venv/pip.log >&2; exit 1; }
ARGS ?=
STARTBENCH ?=
# Recordings of the labelled starts: outside the repository.
TAPES ?= $(or $(TMPDIR),/tmp)/initscope-starts

help:  ## Lists the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo '  ARGS="…" is passed on by demo, serve, test, bench, startbench and starts.'

setup: .venv/.dev .typing/initscope  ## Makes .venv with everything that every verb needs

demo: .venv/.demo  ## Trains good and bad starts under a real collector and serves the live page
	@$(BIN)/initscope demo $(ARGS)

serve: .venv/.demo  ## Starts the collector on 127.0.0.1:8642
	@$(BIN)/initscope serve $(ARGS)

test: .venv/.dev  ## Runs the tests
	@$(BIN)/python -m pytest -rs $(ARGS)

check: lint typecheck imports test  ## All of the four: lint, types, floors, tests

lint: .venv/.dev  ## ruff: rules and format
	@$(BIN)/ruff check $(ROOMS) examples
	@$(BIN)/ruff format --check $(ROOMS) examples

typecheck: .venv/.dev .typing/initscope  ## mypy --strict over the rooms
	@$(BIN)/mypy -p initscope.hooks -p initscope.service -p initscope.migrations

imports: .venv/.dev  ## import-linter: imports only go down
	@$(BIN)/lint-imports

wheel: .venv/.dev  ## Builds dist/initscope-*.whl
	@rm -rf build dist
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	@rm -rf build
	@ls dist/*.whl

bench: .venv/.dev  ## Measures hook cost and ingest rate, tables on stdout (ARGS="hook_cost" for one)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

startbench: startbench-there .venv/.dev  ## Watches and scores startbench's development set (STARTBENCH=DIR)
	@out=$$(mktemp) && trap 'rm -f "$$out"' EXIT \
	  && $(BIN)/python "$(STARTBENCH)/run_monitor.py" dev tests.benchmarks.startbench_adapter:make_monitor "$$out" $(ARGS) \
	  && $(BIN)/python "$(STARTBENCH)/score.py" dev "$$out" --families

startbench-there:
	@test -n "$(STARTBENCH)" \
	  || { echo "make startbench needs startbench's folder: make startbench STARTBENCH=DIR" >&2; exit 2; }
	@test -f "$(STARTBENCH)/run_monitor.py" -a -f "$(STARTBENCH)/score.py" \
	  || { echo "make startbench: $(STARTBENCH) is not startbench's folder, run_monitor.py or score.py is missing" >&2; exit 2; }

starts: .venv/.dev  ## Watches our own labelled starts (STARTBENCH=DIR: also those), scores them, leaves one family out
	@$(BIN)/python -m tests.benchmarks.starts record "$(TAPES)" $(if $(STARTBENCH),--startbench "$(STARTBENCH)") $(ARGS)
	@$(BIN)/python -m tests.benchmarks.starts score "$(TAPES)" --details
	@$(BIN)/python -m tests.benchmarks.starts families "$(TAPES)"

clean:  ## Removes .venv and everything that the verbs made
	rm -rf .venv .typing build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# mypy does not follow the editable install's import hook; a link that mirrors the import names helps it.
.typing/initscope:
	@mkdir -p .typing && ln -sfn .. $@

.venv/.made:
	@test -n "$(PYTHON)" || { echo "initscope needs Python 3.11 or newer, and no such python was found."; \
	  echo "Install one (Debian: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11 …"; exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "initscope needs Python 3.11 or newer; PYTHON=$(PYTHON) is not."; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments (Debian: apt-get install python3-venv)."; exit 1; } >&2
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.made pyproject.toml constraints.txt
	@echo "Installing initscope with the demo's packages into .venv (a minute or two, once) …"
	@$(call PIP_INSTALL,demo)
	@touch $@

# The tools include the demo's packages, so one installation serves both verbs.
.venv/.dev: .venv/.made pyproject.toml constraints.txt
	@echo "Installing initscope with the packages of demo and tests into .venv (two or three minutes, once) …"
	@$(call PIP_INSTALL,dev)
	@touch .venv/.demo $@
