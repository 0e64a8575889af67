# `make` explains itself: every target with a ## comment is listed by `make help`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SCAN ?=
SEED ?= 1
MINUTES ?= 2
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml requirements/torch.txt requirements/locked.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH; name another 3.11+ with make PYTHON=…" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/locked.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m compileall -q services migrations  # as pip does for everything else: each process starts sooner
	@touch $@

VIEWER := services/api/console/viewer
VIEWER_SOURCES := $(wildcard $(addprefix $(VIEWER)/frontend/,*.json *.mjs src/* licences/*))
BUILD_ASSETS := $(BIN)/python services/api/console/build_assets.py

.PHONY: install
install: $(STAMP) ## make .venv with the segint command, and the scan viewer where npm's registry can be reached
	@$(MAKE) --no-print-directory --question $(VIEWER)/static/viewer.js || $(BUILD_ASSETS) --optional
	@$(MAKE) --no-print-directory --question $(LIBRARY) || $(COMPILE) --optional
	@echo "$(BIN)/segint is installed"

$(VIEWER)/static/viewer.js: $(VIEWER_SOURCES) | $(STAMP)
	$(BUILD_ASSETS)

.PHONY: console-assets
console-assets: $(VIEWER)/static/viewer.js ## build the scan viewer's script from npm packages; it becomes part of the wheel

COMPILED := services/worker/engine/compiled
LIBRARY := $(COMPILED)/libsums-aarch64.so
COMPILE := $(BIN)/python $(COMPILED)/build.py

$(LIBRARY): $(COMPILED)/sums.c $(COMPILED)/build.py | $(STAMP)  # the last one made
	$(COMPILE)

.PHONY: compiled
compiled: $(LIBRARY) ## compile the engine's sums in C, with Clang from a Python wheel; they become part of the wheel

.PHONY: browser
browser: ## install Debian's Chromium for the browser tests, where this is root and it is missing
	@if command -v chromium >/dev/null; then echo "chromium is there"; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "no chromium, and no way to install it from here: browser tests will be skipped" >&2; \
	else \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium \
			>/dev/null; } || echo "chromium could not be installed: browser tests will be skipped" >&2; \
	fi

.PHONY: test-servers
test-servers: ## install Debian's Prometheus and nginx for the tests, where this is root, they are missing, and nothing would start them
	@if command -v promtool >/dev/null && command -v nginx >/dev/null; then echo "prometheus and nginx are there"; \
	elif [ "$$(id -u)" != 0 ] || [ -d /run/systemd/system ] || ! command -v apt-get >/dev/null; then \
		echo "prometheus or nginx is missing, and cannot be installed from here unstarted: its tests will be skipped" >&2; \
	else \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus \
			nginx-light >/dev/null; } || echo "they could not be installed: tests of prometheus and nginx will be skipped" >&2; \
	fi

.PHONY: demo
demo: $(STAMP) ## segment a synthetic head CT (or SCAN=path) from end to end; pictures land in ./demo-output
	$(BIN)/segint demo --out demo-output $(if $(SCAN),--scan "$(SCAN)")

.PHONY: test
test: install browser test-servers ## run every test, in three processes with a PostgreSQL and a Redis each, and in a browser where there is one
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadgroup --no-loadscope-reorder

.PHONY: chaos
chaos: $(STAMP) ## break everything around a busy deployment, in the order of SEED=1, for MINUTES=2; then check the books
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(if $(OUT),--out "$(OUT)")

.PHONY: coverage
coverage: install browser test-servers ## run every test and report what they reach, processes included
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

.PHONY: lint
lint: $(STAMP) ## check style, types, import rules and generated files; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy scripts/bundle.py
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/generate.py --check

.PHONY: format
format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: protos
protos: $(STAMP) ## regenerate services/core/wire/_pb from protos/
	$(BIN)/python protos/generate.py

.PHONY: docs
docs: $(STAMP) ## regenerate the tables of the README, docs/model-options.md and the chart's README
	$(BIN)/python docs/generate.py

.PHONY: bench
bench: $(STAMP) ## time one segmentation of 512x512x200 voxels, stage by stage; prints JSON
	$(BIN)/python -m benchmarks.segmentation

.PHONY: bench-load
bench-load: $(STAMP) ## load a deployment with 32 clients for two minutes on two cores; prints JSON
	$(BIN)/python -m benchmarks.load

.PHONY: bench-engine
bench-engine: $(STAMP) ## time the engine around a U-Net on 512x512x200 voxels, for two overlaps (ten minutes on two cores); prints JSON
	$(BIN)/python -m benchmarks.engine

.PHONY: bench-viewer
bench-viewer: install ## time the scan viewer on 512x512x200 voxels and 14 structures in a browser; prints JSON
	$(BIN)/python -m benchmarks.viewer

.PHONY: screenshots
screenshots: install browser ## take the pictures in docs/images anew, of every page of the console and of the viewer
	$(BIN)/python -m tests.console.screenshots
	$(BIN)/python -m tests.console.page_screenshots

.PHONY: images
images: install ## build the images with docker, buildah or podman, whichever works here; VARIANTS="cpu cuda"
	scripts/build-images

.PHONY: bundle
bundle: install ## pack chart, images, wheels, licences and documentation into one archive for sites without internet
	$(BIN)/python scripts/bundle.py

.PHONY: lock
lock: $(STAMP) ## refresh requirements/locked.txt from pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --all-extras --strip-extras --unsafe-package torch --unsafe-package segint \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-header \
		--output-file requirements/locked.txt pyproject.toml requirements/torch.txt

.PHONY: clean
clean: ## remove what the other targets made, .venv included
	rm -rf $(VIEWER)/static $(VIEWER)/frontend/node_modules $(COMPILED)/*.so
	rm -rf $(VENV) demo-output .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
