# `make` lists the targets. tools/kernel-run provides a kernel with TLS for the tests that need one.

PYTHON ?= /usr/bin/python3
# The longest time of a test run, in seconds, for each start of the test kernel.
export SSA_KERNEL_TIMEOUT ?= 3600

BENCH_KERNEL = $(or $(KERNEL),7.2)

BIN := .venv/bin
ON_HOST := $(wildcard tests/unit tests/loopback tests/fuse tests/native)
RELAYED := $(wildcard tests/interop/test_inject_a*.py tests/interop/test_inject_cut.py tests/interop/test_inject_programs.py)
ON_KERNEL := $(wildcard tests/fuse tests/kernel tests/interop tests/native)

.PHONY: help setup demo go native native-sanitized test test-host test-kernel test-7.2 test-long test-ports test-compat test-programs lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ': .*## ' '/^[a-z0-9.-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

setup: .venv/ready ## install Debian packages, and Python packages in .venv

.venv/ready: pyproject.toml tools/debian-packages
	tools/setup-debian
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --config-settings editable_mode=compat --editable '.[dev]' # by a plain path, so that /ssa is not taken for the package
	touch $@

demo: setup ## show ssa with real servers: here, and on a kernel with TLS if this one has none
	tools/demo
	$(BIN)/python -c 'import sys; from ssa.ktls.probe import probe; sys.exit(not probe().tls)' || tools/kernel-run tools/demo

build/interop-go: tests/interop/go/main.go | setup # built here, because the test kernel takes minutes for it
	cd tests/interop/go && GOCACHE=$(CURDIR)/build/go-cache CGO_ENABLED=0 go build -trimpath -o $(CURDIR)/$@ .

go: | setup ## build the Go programs of the tests, in build/go: here, because the test kernel takes minutes for it
	$(BIN)/python -m tests.native.golang

native: | setup ## build libssa for C programs, in build/native: libssa.so, libssa-tls.so (and its parts for OpenSSL and for GnuTLS) and ssa.h; and the addon for Node
	$(MAKE) --no-print-directory --jobs=2 -C clients/c BUILD=$(CURDIR)/build/native
	$(MAKE) --no-print-directory -C clients/node BUILD=$(CURDIR)/build/native/node

native-sanitized: | setup
	$(MAKE) --no-print-directory --jobs=2 -C clients/c BUILD=$(CURDIR)/build/native/asan SANITIZE=address,undefined
	$(MAKE) --no-print-directory --jobs=2 -C clients/c BUILD=$(CURDIR)/build/native/tsan SANITIZE=thread

test: lint native native-sanitized go build/interop-go build/examples-go/ready ## lint, then run the tests: on this kernel, and side by side those for kernel TLS on one that has it
	@mkdir -p build
	@echo "build/test-kernel.txt is what the tests on a kernel with TLS say; it is shown at the end"
	$(MAKE) --no-print-directory --jobs=2 --keep-going test-host test-kernel; status=$$?; cat build/test-kernel.txt; exit $$status

test-host:
	$(BIN)/pytest $(ON_HOST)
	$(BIN)/pytest -k "relay or anchors or programs" $(RELAYED) # what runs on both data paths, or knows of none

test-kernel:
	tools/kernel-run $(BIN)/pytest $(ON_KERNEL) >build/test-kernel.txt 2>&1

test-7.2: setup native go build/interop-go build/examples-go/ready ## run the tests for kernel TLS on kernel 7.2, which has rekeying (built the first time: six minutes)
	tools/kernel-build 7.2
	KERNEL=7.2 tools/kernel-run $(BIN)/pytest $(ON_KERNEL)

# Tests that have failed on a busy machine. They run 500 times each, beside busy loops.
ENDS := tests/loopback/test_relay.py::test_the_last_holder_ends_the_stream
CUTS := tests/kernel/test_tlssocket.py::test_a_file_tells_a_cut_stream
AGAIN := pytest --quiet --repeat 500 --maxfail=1

test-long: setup ## run some tests 500 times under load, on all kernels
	tools/kernel-build 7.2
	tools/under-load 3 $(BIN)/$(AGAIN) $(ENDS)
	KERNEL=6.1 tools/kernel-run tools/under-load 1 $(BIN)/$(AGAIN) $(ENDS) $(CUTS)
	KERNEL=7.2 tools/kernel-run tools/under-load 1 $(BIN)/$(AGAIN) $(ENDS) $(CUTS)

# The libraries of docs/compatibility.md, each group in a directory of its own: urllib3 1.26 is beside urllib3 2, and pymongo
# uses pyOpenSSL where it finds it.
COMPAT := build/compat

$(COMPAT)/ready: $(wildcard tests/compat/requirements*.txt) tests/compat/debian-packages | setup
	tools/setup-debian tests/compat/debian-packages
	rm -rf $(COMPAT)
	$(PYTHON) -m venv $(COMPAT)/venv
	$(COMPAT)/venv/bin/pip install --quiet --requirement tests/compat/requirements.txt
	for of in pyopenssl twisted urllib3-1.26; do \
		$(COMPAT)/venv/bin/pip install --quiet --target $(COMPAT)/$$of --requirement tests/compat/requirements-$$of.txt || exit; \
	done
	touch $@

test-compat: $(COMPAT)/ready ## run libraries that people use under ssa, over the relay and with kernel TLS, and write docs/compatibility.md
	$(BIN)/python -m tests.compat.run relay
	KERNEL=6.1 tools/kernel-run $(BIN)/python -m tests.compat.run ktls
	$(BIN)/python -m tests.compat.page

build/examples-go/ready: $(wildcard examples/http-client/go/*/*.go clients/go/*.go) | setup
	cd examples/http-client/go && GOCACHE=$(CURDIR)/build/go-cache GOFLAGS=-mod=mod GOPROXY=off CGO_ENABLED=0 \
		go build -trimpath -o $(CURDIR)/$(@D)/ ./... && touch $(CURDIR)/$@

test-ports: setup ## build Caddy with ssa's modules from Debian's source package (two minutes, 100 MB), and fetch pages through it
	tools/setup-debian tests/ports/debian-packages
	tools/caddy-build
	$(BIN)/pytest tests/ports

test-programs: setup native build/examples-go/ready ## run unmodified programs by each way to ssa, over the relay and with kernel TLS, and write the tables of docs/programs.md
	$(BIN)/python -m tests.ways.run relay
	KERNEL=6.1 tools/kernel-run $(BIN)/python -m tests.ways.run ktls
	$(BIN)/python -m tests.tables

C_FILES = $(filter-out clients/c/ssa.h clients/c/tables.h %/left_alone.h,$(wildcard clients/c/*.[ch] clients/c/*/*.[ch] clients/node/*.[ch] tests/native/*.c tests/native/*/*.c bench/*.[ch] examples/*/*.c))

lint: setup ## check the code with ruff, mypy and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/python tools/make-header --check
	$(BIN)/python tools/make-tables --check
	$(BIN)/python tools/make-go-tables --check
	test -z "$$(gofmt -l clients/go tests/native/go tests/interop/go | tee /dev/stderr)"

bench: setup native ## measure the relay on this machine, then kernel TLS on KERNEL=7.2 (built the first time) or 6.1; writes docs/performance.md; BESIDE=REV: also beside that revision
	$(BIN)/python -m bench --part host --write
	$(if $(BESIDE),$(BIN)/python -m bench --part host --beside $(BESIDE))
	test $(BENCH_KERNEL) = 6.1 || tools/kernel-build $(BENCH_KERNEL)
	KERNEL=$(BENCH_KERNEL) tools/kernel-run $(BIN)/python -m bench --part kernel
	$(if $(BESIDE),KERNEL=$(BENCH_KERNEL) tools/kernel-run $(BIN)/python -m bench --part kernel --beside $(BESIDE))

clean: ## remove what make has made here (the kernels in ~/.cache/ssa stay)
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
