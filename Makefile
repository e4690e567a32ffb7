# Two commands matter: `make demo` and `make test`. Each makes .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
# Test processes side by side; each may take 5 GB.
WORKERS ?= 3
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-extras clean

# The stamps are renewed when what is to be installed changes.
$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"SaferThoughts needs Python 3.11 to 3.13, and $(PYTHON) is {v.major}.{v.minor}. Run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e ".[dev]"
	touch $@

demo: $(VENV)/.demo
	$(VENV)/bin/saferthoughts demo

test: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -n $(WORKERS)

# Each extra alone, as pip installs it: gigabytes and many minutes.
test-extras: $(VENV)/.dev
	$(VENV)/bin/pytest -m slow tests/test_extras.py -n $(WORKERS) --dist load

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
