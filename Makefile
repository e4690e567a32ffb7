# Two commands matter: `make demo` and `make test`. Each makes .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
# Test processes side by side, since many tests wait for other programs; all took 10 GB together.
WORKERS ?= 4
# pip compiles with one core, and what nobody imports too.
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo demo-fast test types suite test-extras docs clean

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"SaferThoughts needs Python 3.11 to 3.13, and $(PYTHON) is {v.major}.{v.minor}. Run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)

# The stamps are renewed when what is to be installed changes.
$(VENV)/.fast: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what generation, curation and releases need into $(VENV), once"
	$(PIP) -e ".[generate,curate,sign]"
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the demo needs into $(VENV), torch among it, once"
	$(PIP) -e ".[demo]"
	touch $(VENV)/.fast $@

# All cores compile, so that the test processes need not, each for itself; a package may hold a file that is no Python.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[dev]"
	$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $(VENV)/.fast $(VENV)/.demo $@

demo: $(VENV)/.demo
	$(VENV)/bin/saferthoughts demo

# The same without training, which needs no torch.
demo-fast: $(VENV)/.fast
	$(VENV)/bin/saferthoughts demo --no-train

test: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@$(MAKE) --no-print-directory -j 2 suite types

# mypy has one core, which the suite's processes leave to it while they wait for each other.
types: $(VENV)/.dev
	$(VENV)/bin/mypy

suite: $(VENV)/.dev
	$(VENV)/bin/pytest -n $(WORKERS)

# Each extra alone, as pip installs it: gigabytes and many minutes.
test-extras: $(VENV)/.dev
	$(VENV)/bin/pytest -m slow tests/test_extras.py -n $(WORKERS) --dist worksteal

# The guides and the reference as a site: open site/index.html.
docs: $(VENV)/bin/python
	$(PIP) -e ".[docs]"
	$(VENV)/bin/python -m zensical build --strict --clean

clean:
	rm -rf site .cache $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
