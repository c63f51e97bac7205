# Everything runs from a clean clone: the environment is made first, in .venv.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
# Threads that wait without spinning: several times faster where another program wants a core too.
export OMP_WAIT_POLICY ?= passive
SEED ?= 0
# `lowest-direct` installs the oldest versions that pyproject.toml allows.
RESOLUTION ?= highest
# Modules are compiled once: every process that imports DIRECT from its sources spends four seconds more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup test test-slow test-peer lint docs demo speed clean

setup: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || \
	  { echo "Python 3.12 or later is needed: install it (uv python install 3.12, pyenv install 3.12) or set PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --resolution $(RESOLUTION) --editable ".[demo,test]"
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# The guide and the reference, in docs/_build/html; a name that is not found is an error, like every other warning.
docs: setup
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet -c docs . docs/_build/html

# Two processes, a file each at a time: tests run on one thread, and share what they train within their file. Files
# come in their order, which ends with short ones; that of their numbers of tests ends with few tests that take long.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync lint docs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# Thirty kills each; pages in a browser, where chromium or google-chrome is installed; an installation from the wheel.
test-slow: setup
	$(BIN)/python -m pytest -q -m slow

# Against deepinv.
test-peer: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[peers]"
	$(BIN)/python -m pytest -q -m peer

# Minutes on a machine that does nothing else; see projects/speed.
speed: setup
	$(BIN)/python -m benchmarks.speed --json runs/speed.json

# Phantoms, two trainings by DIRECT, two predictions, one table and two pictures; then a slice of a head with its own.
demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" SEED=$(SEED) DEMO=$(DEMO) projects/demo/run.sh

clean:
	rm -rf runs build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
