# One command for a chore, the same in CI. `make demo` and `make test` set everything up by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := edgeloop-demo
STAMP := $(VENV)/.ready
DEMO_STAMP := $(VENV)/.ready-for-demo
TVM := apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 tflite==2.18.0 typing_extensions==4.16.0

.PHONY: demo test test-part-1 test-part-2 lint test-full test-board test-board-short bench honesty figures clean system \
	system-board

demo: $(DEMO_STAMP) ## the quickstart on data that comes with a package, against this machine
	@rm -rf $(DEMO)
	$(BIN)/edgeloop init $(DEMO)
	@echo "==> a campaign on this machine: trains, builds and measures a few networks, two to six minutes"
	$(BIN)/edgeloop run $(DEMO)/campaign.toml --out $(DEMO)/run

test: $(STAMP) lint system ## lint, types, import contracts and every test but the long ones
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-part-1 test-part-2

# Two halves of about the same length, side by side: few tests need more than a core.
SHORT := -m "not full and not board" --durations=15
PART_1 := tests/integration/test_[a-f]*.py

test-part-1: $(STAMP) system
	$(BIN)/pytest $(SHORT) $(PART_1)

test-part-2: $(STAMP) system
	$(BIN)/pytest $(SHORT) --ignore-glob='$(PART_1)' --ignore tests/board

test-full: $(STAMP) system system-board ## the long tests too
	$(BIN)/pytest

test-board: $(STAMP) system-board ## a virtual ARM board from nothing: both systems, both engines, a campaign, a pulled plug
	$(BIN)/pytest -m board tests/board

test-board-short: $(STAMP) system-board ## what CI runs of it: one board, under six minutes with its own image
	$(BIN)/pytest -m "board and not full" --durations=5 tests/board

lint: $(STAMP) ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) system ## pushes against scp, the agent against a bare loop, spread over sessions, ten runs, time to verdict, engines, search
	$(BIN)/python tests/bench/bench_push.py
	$(BIN)/python tests/bench/bench_agent.py
	$(BIN)/python tests/bench/bench_spread.py
	$(BIN)/python tests/bench/bench_ten_runs.py
	$(BIN)/python tests/bench/bench_verdict.py
	$(BIN)/python tests/bench/bench_engines.py
	$(BIN)/python tests/bench/bench_search_cost.py

honesty: $(STAMP) ## docs/results/honesty.md: false passes and false fails at a known truth; about 6 minutes on an idle machine
	PYTHONPATH=tests $(BIN)/python -m honesty

figures: $(STAMP) ## the house in figures: rooms, names, crossings, complexity, and how one measure walks
	$(BIN)/python tests/architecture/house_figures.py --walk

# pip says nothing but errors, and each long step says what it does. The demo's packages are a part of the tests'.
PIP := $(BIN)/python -m pip install -qq --root-user-action=ignore
PINNED := $(PIP) -c constraints.txt

# torch goes in first and by itself: resolved together with the rest, a CUDA build of several GB comes in.
$(DEMO_STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	@echo "==> a virtual environment in $(VENV), some seconds"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@echo "==> torch: 0.9 GB on disk, about half a minute"
	@$(PINNED) torch
	@echo "==> edgeloop, its converter and quantizer: 1.4 GB on disk, about a minute"
	@$(PINNED) -e '.[tflite]'
	@touch $@

# TVM goes in last and without its dependencies, which are there: pip can't resolve it beside litert-torch (pyproject.toml).
$(STAMP): $(DEMO_STAMP)
	@echo "==> tools of the tests, tensorflow and TVM: 2.9 GB on disk, about two minutes"
	@$(PINNED) --group dev
	@$(PIP) --no-deps $(TVM)
	@touch $@

# A real sshd on a loopback port is part of the tests. Installed where we may, named where we may not.
system:
	@PATH="$$PATH:/usr/sbin" command -v sshd >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& echo "==> openssh-server, some seconds" \
		&& apt-get update -qq && apt-get install -y -qq openssh-server >/dev/null; } \
		|| { echo "the tests need sshd: sudo apt-get install openssh-server"; exit 2; }

# What virtual boards are built and run with; named with the install command where we may not install it.
system-board:
	@$(BIN)/python -c 'import sys; from edgeloop.testing.virtual_board import why_no_virtual_board as why; sys.exit(why() is not None)' \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "==> QEMU and what makes its images, about a minute" \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends qemu-system-arm mmdebstrap fakeroot e2fsprogs >/dev/null; } \
		|| { echo "virtual boards need: sudo apt-get install qemu-system-arm mmdebstrap fakeroot e2fsprogs"; exit 2; }

clean:
	rm -rf $(VENV) $(DEMO) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
