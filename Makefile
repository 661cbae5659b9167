# `make demo` and `make test` do everything on a fresh machine.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
VENV := $(shell tools/setup_env.sh --path)
# Two OpenMP threads beside another busy process are slower than one.
THREADS := PYTHONPATH='$(CURDIR)' OMP_NUM_THREADS=1
RUN := $(THREADS) '$(VENV)/bin/python'
# one for each docs.txt, kept between clones as the environment is
DOCS_ENV := $(VENV)-docs-$(shell sha256sum requirements/docs.txt | cut -c1-12)
SITE ?= build/docs
# a worker that has nothing left takes tests of the other's
PYTEST := $(RUN) -m pytest -n 2 --dist worksteal
# of `make pytest`: files and folders
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help setup env demo demo-baseline demo-seg test pytest test-slow \
	test-gpu test-openmmlab docs docs-env lint venv-path

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: env  ## build the environment, once per machine (10 minutes)
	@printf 'the environment is ready; in each new shell:\n  source %q\n' \
		'$(CURDIR)/tools/activate'

env:
	@tools/setup_env.sh

demo: env  ## train a detector on aerial photographs, read out where it looks, explain its boxes (10 minutes)
	@$(RUN) tools/demo.py --out work_dirs/demo

demo-baseline: env  ## the same for the plain detector
	@$(RUN) tools/demo.py --variant baseline --out work_dirs/demo-baseline

demo-seg: env  ## the same for segmentation, digits on photographs (10 minutes)
	@$(RUN) tools/demo.py --task segmentation --out work_dirs/demo-seg

test: env  ## lint, type-check and run the tests (20 minutes)
	@$(MAKE) --no-print-directory lint
	@echo 'tests, two processes:'
	@$(MAKE) --no-print-directory pytest

pytest: env  ## the tests alone, or some: TESTS=tests/test_cli
	@$(PYTEST) -m 'not slow' $(TESTS)

test-slow: env  ## the tests that take minutes each
	@$(PYTEST) -m slow

test-gpu: env  ## the tests that need a CUDA device
	@$(RUN) -m pytest -rs -m gpu

test-openmmlab:  ## the tests on OpenMMLab's own distributions, in their own environment
	@tools/setup_env.sh --openmmlab
	@$(THREADS) "$$(tools/setup_env.sh --openmmlab --path)/bin/python" \
		-m pytest -n 2 -rs -m 'not slow'

docs: docs-env  ## these pages and the API as a site, in build/docs
	@PYTHONPATH='$(CURDIR):$(DOCS_ENV)' '$(VENV)/bin/python' -m sphinx \
		-W --keep-going -q -b html docs '$(SITE)'
	@echo 'open in a browser: $(abspath $(SITE))/index.html'

# Beside the environment, whose packages the base libraries pin, and not inside it. The
# lock lets two ask at once.
docs-env: env
	@exec 9>'$(DOCS_ENV).lock'; flock 9; \
	[ -e '$(DOCS_ENV)/.complete' ] || { rm -rf '$(DOCS_ENV)'; \
	'$(VENV)/bin/python' -m pip install -q --no-warn-conflicts --disable-pip-version-check \
		--target '$(DOCS_ENV)' -r requirements/docs.txt && touch '$(DOCS_ENV)/.complete'; }

lint: env  ## ruff and mypy
	@'$(VENV)/bin/ruff' check .
	@'$(VENV)/bin/ruff' format --check .
	@'$(VENV)/bin/mypy'

venv-path:  ## print the environment's folder
	@tools/setup_env.sh --path
