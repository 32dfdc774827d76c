# make report   environment, notebooks, site        make test   environment, whole test suite
PYTHON  ?= python3.11
PROFILE ?= embedded
BIN     := .venv/bin
SHELL   := /bin/bash

.PHONY: report run test lint pair lab links bench hooks clean
.DELETE_ON_ERROR:

report: .venv/ready pair
	$(BIN)/xailib report $(PROFILE)

run: .venv/ready pair
	$(BIN)/xailib run $(PROFILE)

# One environment for all of it, from the pins in constraints.txt.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 is needed, for which the versions are pinned: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[report,dev]'
	@# Outputs of notebooks never reach git: a filter of this clone strips them.
	-git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/nbstripout --install --attributes .gitattributes
	touch $@

# The .py and the .ipynb of each notebook, brought in step; the newer one wins.
pair: .venv/ready
	@$(BIN)/jupytext --quiet --sync notebooks/*.py

test: .venv/ready pair lint
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: .venv/ready pair
	$(BIN)/jupyter lab

# Links that leave the site; those inside it are tested by `make test`.
links: .venv/ready pair
	XAILIB_PROFILE=$(PROFILE) $(BIN)/jupyter-book build . --builder linkcheck --path-output _build/links

bench: .venv/ready
	$(BIN)/python benchmarks/run.py

hooks: .venv/ready
	$(BIN)/pre-commit install

clean:
	rm -rf _build results
