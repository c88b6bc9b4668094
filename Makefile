# flashpy: the commands of daily work. On a fresh machine with Python 3.11 or newer
# `make serve` and `make test` do all the set-up that they need.
#
#   make serve   a web server on http://127.0.0.1:8080 with the site in conf/
#   make test    the whole test suite           (make test ARGS="-k ranges")
#   make check   what CI runs: format, lint, types, tests
#   make bench   CPU and latency against nginx  (loadtests/compare.py)
#   make load    two real traces, every byte checked (loadtests/run.py)
#   make clean   removes what the above made

PYTHON ?= python3
VENV ?= .venv
# Test processes at a time, and more arguments for pytest, bench and load.
JOBS ?= auto
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: serve test check bench load clean
.DEFAULT_GOAL := serve

# exec: the server takes the shell's place, so that a signal to the job reaches it.
serve: $(VENV)/.made-serve
	@exec $(BIN)/flashpy serve -c conf/site.toml

test: $(VENV)/.made-test
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: $(VENV)/.made-test
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m mypy
	@$(MAKE) --no-print-directory test

bench: $(VENV)/.made-test
	@exec $(BIN)/python loadtests/compare.py $(ARGS)

load: $(VENV)/.made-load
	@exec $(BIN)/python loadtests/run.py $(ARGS)

clean:
	rm -rf .venv .venv-3.* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find flashpy helpers tests loadtests -name __pycache__ -prune -exec rm -rf {} +

# A stamp is touched only when its step has succeeded, so an interrupted one is repeated.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "flashpy needs Python 3.11 or newer, and $(PYTHON) is not." \
	       "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment: its ensurepip module is missing." \
	       "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.made-serve: pyproject.toml $(VENV)/.made
	@echo "installing flashpy into $(VENV) (once)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.made-test: pyproject.toml $(VENV)/.made
	@echo "installing flashpy and its test tools into $(VENV) (once)"
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.made-serve

$(VENV)/.made-load: pyproject.toml $(VENV)/.made
	@echo "installing flashpy and locust into $(VENV) (once)"
	@$(PIP) -e '.[load]'
	@touch $@ $(VENV)/.made-serve
