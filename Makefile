# Needs only Python 3.11 to 3.13, make and the package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3.13 || echo python3)
DEMO = results/demo
# Where it is set, each of hundreds of processes compiles every module anew.
export PYTHONDONTWRITEBYTECODE =
# Two processes, each with one thread for TensorFlow.
PYTEST = OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: setup develop demo images lint check test bits torture gpu container pages docs

# What runs the program.
setup: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	@echo "Installing into .venv what runs the program: 0.75 GB to download, 2.7 GB on disk."
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --editable .
	@.venv/bin/run.py --version && du -sh .venv
	touch $@

# What tests and checks of the code need beside.
develop: .venv/developed

.venv/developed: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# Trains, tests and blacks out mmnn on the simulated demo cohort.
demo: setup
	.venv/bin/python run.py --train --chkPointDir $(DEMO)/ckpt --outDir $(DEMO)/train
	.venv/bin/python run.py --test --chkPointDir $(DEMO)/ckpt --outDir $(DEMO)/test
	.venv/bin/python run.py --blackout --chkPointDir $(DEMO)/ckpt --outDir $(DEMO)/blackout
	@echo "Open $(DEMO)/test/report.html and $(DEMO)/blackout/blackout.html (simulated data)"

lint: develop
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-logo
	.venv/bin/mypy

# What to run before every commit: a minute in place of eight.
check: lint
	$(PYTEST) -m "not slow"

# Everything; .ci/run calls it.
test: lint
	$(PYTEST)

# What is equal on every processor, as one without AVX-512 computes it; BITS are some of the files.
bits: develop
	TF_ENABLE_ONEDNN_OPTS=0 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell $(PYTEST) -m bits $(BITS)

# Kills, full disks and disks that cannot be written: says in a table what was lost, within half an hour on 2 cores.
torture: develop
	.venv/bin/python tests/kills.py

# What a GPU does: memory, speed, precision, and whether it is left to others, in a table; says so where there is none.
gpu: develop
	.venv/bin/python tests/gpu.py

# What docs/container/Dockerfile makes, in a clean Debian without an engine, in a table; asks first, or takes YES=1.
container: develop
	.venv/bin/python tests/container.py

# Every kind of page in Chromium, before axe, a checker of accessibility, in a table; PAGES names folders, PICTURES one.
pages: .venv/pages
	.venv/bin/python tests/browser.py $(PAGES) $(if $(PICTURES),--pictures $(PICTURES))

.venv/pages: .venv/developed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[pages]"
	touch $@

# The documentation as a site, which is read and searched from disk; every warning is an error.
docs: .venv/docs
	rm -rf site
	.venv/bin/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . site
	@echo "Open site/index.html"

.venv/docs: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

# Makes the figures in images/ from the demo cohort.
images: demo
	.venv/bin/python run.py --train --model cae --chkPointDir $(DEMO)/ckpt --outDir $(DEMO)/cae-train
	.venv/bin/python run.py --test --model cae --chkPointDir $(DEMO)/ckpt --outDir $(DEMO)/cae-test
	cp $(DEMO)/cae-test/*Image.png $(DEMO)/blackout/blackout.png images/
