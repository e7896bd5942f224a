# make demo: install, and super-resolve a real MRI crop.  make test: install, and run every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types contracts constraints clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/scisr run workflows/mri_x2.yaml --overwrite

test: lint types contracts
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

contracts: $(VENV)/.test
	$(BIN)/lint-imports

$(BIN)/python:
	@$(PYTHON) -c "import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f'Python 3.11 or newer is needed, this is {v.major}.{v.minor}; try make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install --quiet pip; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sciSR into $(VENV); the first time takes some minutes."
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sciSR and its test tools into $(VENV); the first time takes some minutes."
	$(PIP) --editable ".[test]"
	@touch $@ $(VENV)/.demo

# the versions that a fresh install of today would take; the pinned torch stays
constraints:
	$(PYTHON) -m venv --clear .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet "torch==2.13.0" --editable ".[test]"
	.venv-constraints/bin/python -m pip freeze --exclude-editable | sed -e 's/+cpu$$//' -e 's/ @ .*//' > constraints.txt
	rm -rf .venv-constraints

clean:
	rm -rf $(VENV) .venv-constraints build dist out
