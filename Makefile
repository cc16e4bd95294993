# `make` alone explains itself. Everything is installed into .venv, nothing outside this folder.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
# The first Python that is new enough. Another one: make run BASE_PYTHON=/path/to/python
CANDIDATES := python3.11 python3 python3.12 python3.13 python3.14
BASE_PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell $(name) -c \
	'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
# Passed to pytest: make test TESTS="tests/brokers -x"
TESTS ?=
# Passed to the benchmark: make bench BENCH="workloads --only b c --seconds 20"
BENCH ?=
# Settings for tools that load Django's without running anything, so that they write no .env.
THROW_AWAY := SECRET_KEY=throw-away CREDENTIALS_KEY=throw-away

.PHONY: help run test lint types contracts format oracles bench bench-smoke schemas lock

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.installed ## Install what is needed and start the demo: a stream without any account
	$(PYTHON) manage.py stream --demo

test: .venv/.installed-dev ## Run all tests; parts that are missing here are named at the end (CI=true: they fail)
	@if [ "$${CI:-}" = true ]; then $(MAKE) oracles; fi
	$(PYTHON) -m pytest -n 2 $(TESTS)

lint: .venv/.installed-dev ## Check the style of the code
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: .venv/.installed-dev ## Check the types
	$(THROW_AWAY) $(PYTHON) -m mypy

contracts: .venv/.installed-dev ## Check who may import whom
	.venv/bin/lint-imports

format: .venv/.installed-dev ## Bring the code into its style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

oracles: .venv/.installed-dev ## Install the brokers' own libraries, each apart, to compare decoders with
	$(PYTHON) tests/oracles/make.py

bench: .venv/.installed-dev ## Measure the product and its peers, with tables and pictures (half an hour)
	$(PYTHON) -m bench $(BENCH)

bench-smoke: .venv/.installed-dev ## See that the benchmark works (a minute)
	$(PYTHON) -m bench smoke

schemas: .venv/.installed-dev ## Compile the protobuf schemas anew
	PATH=$(CURDIR)/.venv/bin:$$PATH $(PYTHON) -m grpc_tools.protoc -I. --python_out=. --mypy_out=. brokers/schemas/*.proto

lock: .venv/.installed-dev ## Write constraints.txt anew from the requirements (newest versions: make lock UPGRADE=1)
	$(PYTHON) -m uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
		--quiet $(if $(UPGRADE),--upgrade) requirements-dev.txt --output-file constraints.txt

.venv/bin/python:
	@if [ -z "$(BASE_PYTHON)" ]; then \
		echo "Python 3.11 or newer is needed; none of $(CANDIDATES) is. Debian: apt-get install python3 python3-venv" >&2; \
		exit 1; \
	fi
	@$(BASE_PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "$(BASE_PYTHON) cannot make virtual environments. Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making .venv with $$($(BASE_PYTHON) --version)"
	$(BASE_PYTHON) -m venv .venv

.venv/.installed: requirements.txt constraints.txt | .venv/bin/python
	@echo "Installing what requirements.txt lists (about a minute, once)"
	$(PIP) install -r requirements.txt -c constraints.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt requirements-postgres.txt requirements.txt constraints.txt | .venv/bin/python
	@echo "Installing what requirements-dev.txt lists (a few minutes, once)"
	$(PIP) install -r requirements-dev.txt -c constraints.txt
	@touch $@ .venv/.installed
