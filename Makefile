# Nothing to install by hand but Python >= 3.11, git and make.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro help test test-most test-all lint bench bench-faults bench-sweep ui frostnet schema reference figures docs lock
.DEFAULT_GOAL := repro

repro: $(VENV)/.ready  ## train and evaluate what params.yaml says
	@frostline doctor
	@dvc repro
	@frostline report

test: $(VENV)/.ready  ## the quick tests, and the main job from end to end
	python -m pytest -m "not slow and not process" -n 2 --dist loadfile --no-loadscope-reorder

test-most: $(VENV)/.ready  ## those too that start processes or run whole pipelines; what CI runs
	python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.ready  ## all tests; about an hour
	python -m pytest

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## +/:/' | awk -F: '{printf "make %-13s %s\n", $$1, $$2}'

lint: $(VENV)/.ready  ## style, types, architecture
	ruff format --check .
	ruff check .
	mypy
	lint-imports

bench: $(VENV)/.ready  ## the tables of benchmarks/, measured here
	python benchmarks/digits.py
	python benchmarks/photos.py
	python benchmarks/bodies.py
	python benchmarks/choose.py
	python benchmarks/choose_truth.py
	python benchmarks/soup.py
	python benchmarks/all_depths.py
	python benchmarks/backbone.py
	python benchmarks/prepare.py
	python benchmarks/scale.py
	python benchmarks/coded_shards.py
	python benchmarks/near_copies.py
	python benchmarks/main_job.py
	python benchmarks/frozen.py
	python benchmarks/plans.py
	python benchmarks/memory.py
	python benchmarks/serving.py
	python benchmarks/serving_load.py
	python benchmarks/soak.py
	python benchmarks/onednn.py
	python benchmarks/exports.py
	OMP_NUM_THREADS=1 python benchmarks/uncertainty.py
	python benchmarks/hostile.py

bench-faults: $(VENV)/.ready  ## every command killed, every server restarted, a bit flipped in every file; half an hour
	python benchmarks/faults.py

bench-sweep: $(VENV)/.ready  ## sweeps against Optuna around the Keras guide and Keras Tuner; hours, can be gone on with
	python -m pip install --quiet keras-tuner
	python benchmarks/sweep.py --job digits
	python benchmarks/sweep.py --job clothing

ui: $(VENV)/.ready  ## compare runs: http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db

frostnet: $(VENV)/.ready  ## make the embedded backbone again (about 20 minutes on 2 cores)
	cd pretrain && dvc repro
	cp pretrain/models/frostnet.npz src/frostline/models/frostnet.npz

schema:  ## write the JSON Schema of params.yaml anew, after a change of a key or a comment
	python -m frostline.project.json_schema

reference: $(VENV)/.ready  ## write the pages of docs/reference anew, after a change of a key, a command or a file
	python docs/tools/make_reference.py

figures: $(VENV)/.ready  ## write README's figures and docs/pictures anew, after a change of benchmarks/results
	python docs/tools/make_figures.py

docs: .venv-docs/.ready  ## the documentation as a site in .site/html; a dead link fails
	$(PYTHON) docs/tools/make_site.py
	cd .site && ../.venv-docs/bin/zensical build --clean --strict

lock:  ## write requirements.lock anew from pyproject.toml; needs uv
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("frostline needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# The site generator alone, as the extra `docs` names it, without frostline and its libraries.
.venv-docs/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	sed -n 's/^docs = \["\(.*\)"\].*/\1/p' pyproject.toml | xargs .venv-docs/bin/python -m pip install --quiet
	touch $@
