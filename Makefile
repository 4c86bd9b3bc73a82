# The one front door. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
PYTHON ?= python3
# Tests at once: many of them wait for servers.
TEST_JOBS ?= $(shell expr $(JOBS) \* 2)
FUZZ_SECONDS ?= 60
export PYTHON

# Objects are shared between build folders and clones of the same sources.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export CCACHE_SLOPPINESS := pch_defines,time_macros,include_file_mtime,include_file_ctime

VENV := .venv/bin
GPU_PYTHON ?= $(VENV)/python
# Options of bench-gpu: --results FILE, --minutes N.
GPU_BENCH ?=
CXX_SOURCES = $(shell git ls-files '*.h' '*.cpp')
SHELL_SOURCES = .ci/run $(shell git ls-files '*.sh')

.PHONY: build demo test test-cpp test-python test-examples test-fake-gpu test-gpu bench-gpu check bench asan tsan fuzz docs wheel \
	wheelhouse aarch64 format clean help
.DELETE_ON_ERROR:

build: ## the library and the Python package; the command is .venv/bin/inrush
	@tools/setup.sh build
	@$(MAKE) build/release/build.ninja
	@cmake --build build/release -j $(JOBS) --target inrush _core

build/%/build.ninja: CMakePresets.json
	cmake --preset $* --log-level=WARNING

demo: build ## makes a real sharded checkpoint, loads it cold and warm, beside the measured limit
	@$(VENV)/python tools/demo.py build/demo

test: test-cpp test-examples test-python ## everything

test-cpp: build
	@cmake --build build/release -j $(JOBS)
	ctest --test-dir build/release --output-on-failure -j $(TEST_JOBS)

test-examples: build ## examples/ against an installed package
	tools/test_examples.sh build/release

test-python: build
	@tools/setup.sh test
	@cmake --build build/release -j $(JOBS) --target fake_driver
	$(VENV)/pytest -n $(TEST_JOBS) --dist worksteal --durations 20
	@$(MAKE) test-fake-gpu

# Files whose tests load for torch most: the option changes nothing in others.
FAKE_GPU_TESTS := $(patsubst %,python/tests/test_%.py,instanttensor job load mirrors \
	module_protocol modules options safe_open safe_open_checkpoint selection)
test-fake-gpu: build ## tests of loads, delivered to the fake driver's GPU
	@tools/setup.sh test
	@cmake --build build/release -j $(JOBS) --target fake_driver
	$(VENV)/pytest -n $(TEST_JOBS) --dist worksteal --fake-gpu $(FAKE_GPU_TESTS)

CHECKS := tidy formatted linted typed stubs shell
.PHONY: $(CHECKS)

check: $(CHECKS) ## format, tidy, lint, types, stubs, shell

$(CHECKS): checkers

.PHONY: checkers
checkers: build
	@tools/setup.sh check

tidy:
	$(VENV)/python tools/tidy.py

formatted:
	@echo "clang-format: $(words $(CXX_SOURCES)) files"
	@$(VENV)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(VENV)/ruff format --check -q python tools bench

linted:
	$(VENV)/ruff check -q python tools bench

typed: # of what the tests import too
	@tools/setup.sh test
	$(VENV)/mypy

stubs:
	tools/stubs.sh --check

shell:
	@if command -v shellcheck >/dev/null; then shellcheck $(SHELL_SOURCES); fi

format: ## rewrites what check would complain of
	@tools/setup.sh check
	$(VENV)/clang-format -i $(CXX_SOURCES)
	$(VENV)/ruff check --fix-only -q python tools bench
	$(VENV)/ruff format -q python tools bench

bench: build ## limit, peers and Inrush in one run: a JSON and the chart of the README
	@tools/setup.sh test bench
	$(VENV)/python -m bench

test-gpu: ## on a machine with a GPU: what lands there is right (GPU_PYTHON: one with the wheel)
	$(GPU_PYTHON) tools/gpu_check.py

bench-gpu: ## on a machine with a GPU: limits, peers and Inrush; goes on where it was stopped
	$(GPU_PYTHON) -m bench.gpu $(GPU_BENCH)

# Until GCC 13 the leak checker takes some dynamic TLS blocks for an old glibc's and crashes at exit.
asan: export ASAN_OPTIONS ?= intercept_tls_get_addr=0
# Without a descriptor to spare the sanitizer cannot look at memory, and takes every object for a wrong one.
asan: LEFT_OUT := too_few_are_one_error_that_says_what_to_do
# A child of a test may start threads.
tsan: export TSAN_OPTIONS ?= die_after_fork=0:suppressions=$(CURDIR)/tools/tsan.supp
# These race on purpose, for the fake driver to see.
tsan: LEFT_OUT := sees_memory_that_is_used_before_it_is_ready|sees_storage_write_where_a_stream_still_reads
asan tsan: ## the C++ tests under sanitizers
	@tools/setup.sh build
	@$(MAKE) build/$@/build.ninja
	cmake --build build/$@ -j $(JOBS)
	ctest --test-dir build/$@ --output-on-failure -j $(JOBS) $(if $(LEFT_OUT),-E '$(LEFT_OUT)')

fuzz: ## every fuzz target for FUZZ_SECONDS seconds
	@tools/setup.sh build fuzz
	@$(MAKE) build/fuzz/build.ninja
	cmake --build build/fuzz -j $(JOBS)
	tools/fuzz.sh build/fuzz $(FUZZ_SECONDS)

docs: build ## the site, in site/
	@tools/setup.sh docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict --quiet --config-file tools/mkdocs.yml

wheel: ## wheels for CPython 3.10 and later, checked and tried, in dist/
	@tools/setup.sh build
	tools/wheels.sh

wheelhouse: ## what a GPU machine without a network lacks, in wheelhouse/, once make wheel is done
	tools/wheelhouse.sh

aarch64: ## the C++ library and its tests for aarch64, cross-built and run under emulation
	@tools/setup.sh build
	tools/aarch64.sh

clean: ## removes what was built; .venv stays
	rm -rf build dist site python/inrush/_core*.so

help:
	@grep -hE '^[a-z0-9-]+( [a-z0-9-]+)*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
	  column -t -s "$$(printf '\t')"
