# make demo   a video-QA job over a few sample clips, on a Ray started and stopped here
# make test   everything needed to pass the tests
# make lint   style
#
# Options:  PYTHON=python3.12        the interpreter that makes .venv (3.11 or newer)
#           PIP_ARGS="..."           more arguments for pip, e.g. an extra index with a CPU or CUDA build of torch

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

# Nothing here phones home or waits for a model hub.
export RAY_USAGE_STATS_ENABLED = 0
export HF_HUB_OFFLINE = 1

.PHONY: demo test lint clean

demo: $(VENV)/.installed-run
	$(BIN)/python -m demos.video_qa

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv (install one, or say where: make PYTHON=...)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-run: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing anymodal[run] into $(VENV), the first time only"
	@$(INSTALL) -e '.[run]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing anymodal[dev] into $(VENV), the first time only"
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-run

clean:
	rm -rf $(VENV) build dist
