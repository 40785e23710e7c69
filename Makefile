# Everything starts from a fresh clone: each target makes .venv and installs what it needs.
#   make demo        train, spawn twins, measure, write runs/demo.h5 and runs/demo.html (minutes)
#   make test        the test suite (under 10 minutes on 2 cores)
#   make test-full   also the long acceptance runs (up to 60 minutes)
#   make bench       time and peak memory against the peers, written to benchmarks/results/
#   make bench-peers an environment of its own for neural-tangents, which make bench then also times
#   make gpu-check   on a machine with a GPU: check and time the Triton backend, write benchmarks/results/<gpu>.json
#   make lint        ruff, import layers, clang-format
#   make format      rewrite the sources in the project's style
#   make clean       remove builds and environments

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PEERS_PIP := .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check
SOURCES := setup.py pyproject.toml constraints.txt $(shell find csrc -name '*.cpp' -o -name '*.h')

# The environment that is there: a GPU's torch is not the pinned one, and nothing shall come from the network.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

.PHONY: demo test test-full bench bench-peers gpu-check lint format clean

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# torch first and pinned, so that nothing pulls another build of it.
.venv/.torch: $(BIN)/python constraints.txt
	$(PIP) torch
	touch $@

.venv/.demo: .venv/.torch $(SOURCES)
	$(PIP) -e '.[report]'
	touch $@

.venv/.test: .venv/.torch $(SOURCES)
	$(PIP) -e '.[test]'
	touch $@ .venv/.demo

.venv/.dev: .venv/.torch $(SOURCES)
	$(PIP) -e '.[dev]'
	touch $@ .venv/.test .venv/.demo

.venv/.bench: .venv/.test
	$(PIP) -e '.[test,peers]'
	touch $@

# Without its dependencies: they bring TensorFlow for a part that is not used, and requirements.txt names the others.
.venv-peers/.ready: benchmarks/jax_side/requirements.txt
	$(PYTHON) -m venv --clear .venv-peers
	$(PEERS_PIP) -r $<
	$(PEERS_PIP) --no-deps neural-tangents==0.6.5
	touch $@

demo: .venv/.demo
	$(BIN)/twophase demo --overwrite

test: .venv/.test
	$(BIN)/python -m pytest -q -m 'not full' --durations=10

test-full: .venv/.test
	$(BIN)/python -m pytest -q --durations=25

bench: .venv/.bench
	$(BIN)/python -m benchmarks.run

bench-peers: .venv-peers/.ready

gpu-check:
	PYTHONUNBUFFERED=1 $(GPU_PYTHON) -m benchmarks.gpu

lint: .venv/.dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $$(find csrc -name '*.cpp' -o -name '*.h')

format: .venv/.dev
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .
	$(BIN)/clang-format -i $$(find csrc -name '*.cpp' -o -name '*.h')

clean:
	rm -rf .venv .venv-peers build dist *.egg-info twophase_fast/_C*.so
