# make demo    a sketch and a prompt become a picture, with the attention that made it
# make app     the studio in the browser (PORT=7860)
# make test    the tests, but for the long ones
# make long    those: pages in the browser, trainings, evaluations, a crowd, whatever takes its time
# make check   style, types and the rules of the rooms
# make bench   the benchmarks
# make setup   only set up .venv, for development
# Another interpreter: make demo PYTHON=/path/to/python3.12
# Other options of pytest: make test ARGS="-k sketch"

RUN := .venv/bin/python
BROWSE := OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest tests/web
ARGS ?=
PORT ?= 7860
export PYTHON
# Threads that wait spin only shortly, and leave the cores to others (see cli/__init__.py).
export GOMP_SPINCOUNT ?= 5000
# What one operation frees stays for the next one: a seventh of a picture's time (see there too).
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TRIM_THRESHOLD_ ?= 268435456

.PHONY: demo app test long check bench setup clean
.DEFAULT_GOAL := demo

demo: .venv/.ready
	@$(RUN) examples/demo.py

app: .venv/.ready-web
	@.venv/bin/scribble app --port $(PORT)

test: .venv/.ready-dev
ifeq ($(ARGS),)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile -m "not (long or (browser and slow))"
	$(BROWSE) -m "browser and slow and not long" # alone: they need both cores
else
	$(RUN) -m pytest $(ARGS)
endif

long: .venv/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile -m "long and not browser"
	$(BROWSE) -m "long and browser"

check: .venv/.ready-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright
	.venv/bin/lint-imports

bench: .venv/.ready-dev
	@$(RUN) benchmarks $(ARGS)

setup: .venv/.ready-dev

.venv/.ready: pyproject.toml constraints.txt
	@.ci/setup

.venv/.ready-web: pyproject.toml constraints.txt
	@.ci/setup web
	@touch .venv/.ready

.venv/.ready-dev: pyproject.toml constraints.txt
	@.ci/setup dev
	@touch .venv/.ready .venv/.ready-web

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis
