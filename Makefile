# make report   environment, notebooks, site        make test   environment, whole test suite
# make pdf      the last report as one PDF file (needs Chromium)
PYTHON  ?= python3
PROFILE ?= embedded
# Notebooks at a time. Empty: one after the other, each with all cores and its progress shown.
WORKERS ?= 2
# Tests at a time: many of them wait for a browser, a kernel or a disk.
TESTERS ?= 3
# Beside these, a process each: forks, which end a worker of pytest-xdist and at times the tests after them,
# and runs that start processes themselves.
ALONE   := tests/images/test_pool.py tests/report/run
BROWSER ?= $(or $(CHROMIUM),$(shell command -v chromium || command -v google-chrome))
BIN     := .venv/bin
SHELL   := /bin/bash

# Kernels and workers start sooner where Python keeps what it has compiled.
unexport PYTHONDONTWRITEBYTECODE

# Exact versions of what looks after the versions themselves.
TOOLS   := .venv/tools/bin

.PHONY: report pdf run test tests $(ALONE) lint pair lab links bench bench-gpu evidence fuzz lock audit licences hooks clean
.DELETE_ON_ERROR:

report: .venv/ready pair
	$(BIN)/xailib report $(PROFILE) $(addprefix --workers=,$(WORKERS))

# The report of the last `make report` as one file, printed by a browser. Its page lies in book/, but
# asks for images from the folder above.
pdf: .venv/ready
	XAILIB_PROFILE=$(PROFILE) $(BIN)/jupyter-book build . --builder singlehtml --path-output _build/pdf
	cp _build/pdf/_build/singlehtml/book/index.html _build/pdf/_build/singlehtml/report.html
	$(BROWSER) --headless --no-sandbox --disable-gpu --user-data-dir=$$(mktemp -d) --no-pdf-header-footer \
	  --virtual-time-budget=60000 --print-to-pdf=_build/$(PROFILE).pdf \
	  file://$(CURDIR)/_build/pdf/_build/singlehtml/report.html
	@echo _build/$(PROFILE).pdf

run: .venv/ready pair
	$(BIN)/xailib run $(PROFILE)

# One environment for all of it, from the pins in constraints.txt.
.venv/ready: pyproject.toml constraints.txt
	@# An environment that is there stays, whatever PYTHON says: rm -r .venv for one of another version.
	@test -x $(BIN)/python \
	  || $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	  || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools wheel
ifdef LOCKED
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
else
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[report,dev]'
endif
	@# Outputs of notebooks never reach git: a filter of this clone strips them.
	-git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/nbstripout --install --attributes .gitattributes
	@# A kernel warns of every local connection: errors only.
	mkdir -p .venv/etc/ipython && echo 'c.IPKernelApp.log_level = 40' > .venv/etc/ipython/ipython_kernel_config.py
	@# In JupyterLab a .py opens as a notebook; the setting is this environment's, not the user's.
	$(BIN)/jupytext-config --settings-file .venv/etc/jupyter/labconfig/default_setting_overrides.json set-default-viewer python
	touch $@

# The .py and the .ipynb of each notebook, brought in step; if both were edited, it says so.
pair: .venv/ready
	@$(BIN)/xailib pair

test: .venv/ready pair
	@$(MAKE) --no-print-directory -j4 lint $(ALONE) tests

tests:
	$(BIN)/python -m pytest -n $(TESTERS) $(addprefix --ignore=,$(ALONE))

# What these say comes when they have ended, not between the lines of the others.
$(ALONE):
	@said=$$($(BIN)/python -m pytest -n 0 $@ 2>&1); code=$$?; echo "$$said"; exit $$code

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/jupytext --quiet --test --to py:percent notebooks/*.ipynb
	$(BIN)/jupytext --quiet --check '$(BIN)/python -m py_compile {}' notebooks/*.ipynb

lab: .venv/ready pair
	$(BIN)/jupyter lab

# Links that leave the site; those inside it are tested by `make test`.
links: .venv/ready pair
	XAILIB_PROFILE=$(PROFILE) $(BIN)/jupyter-book build . --builder linkcheck --path-output _build/links

bench: .venv/ready
	$(BIN)/python benchmarks/run.py

# Ours against the peers on this machine's card; with --bundle, for a machine without network.
bench-gpu: .venv/ready
	$(BIN)/python benchmarks/gpu.py $(GPU)

# The evidence run again, resumed where it stopped, beside the kept tables. PHOTOGRAPHS=folder of the 1,000
# photographs; WEIGHTS="resnet18=FILE resnet50=FILE" where published ones cannot be fetched.
evidence: .venv/ready
	for stage in explain score compare; do \
	  $(BIN)/python -m xailib.report.evidence $$stage --photographs $(PHOTOGRAPHS) \
	    $(addprefix --weights ,$(WEIGHTS)) || exit; done

fuzz: .venv/ready
	nice $(BIN)/python tests/fuzz.py --seconds 300

.venv/tools/ready: .venv/ready
	$(BIN)/python -m venv .venv/tools
	$(TOOLS)/python -m pip install -q --disable-pip-version-check uv==0.13.9 pip-audit==2.10.1
	touch $@

# The hash of every file that pip may install; LOCKED=1 installs nothing else.
lock: .venv/tools/ready
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(TOOLS)/uv pip compile -q --system-certs --universal \
	  --python-version 3.11.9 --generate-hashes --no-annotate -c constraints.txt \
	  --extra report --extra dev pyproject.toml -o requirements.lock

# Known weaknesses of the pinned versions, from the Python index's own list: it needs the network.
audit: .venv/tools/ready
	@$(BIN)/python benchmarks/audit.py \
	  $(TOOLS)/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r requirements.lock

licences: .venv/ready
	$(BIN)/python benchmarks/licences.py

hooks: .venv/ready
	$(BIN)/pre-commit install

clean:
	rm -rf _build results
