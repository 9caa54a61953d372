# Two commands do everything on a fresh machine with Python >= 3.10: `make lab` and `make test`.
#
#   PYTHON    the interpreter the environment is made with     make setup PYTHON=python3.12
#   PIP_ARGS  your own options for pip install (README: GPU)   make setup PIP_ARGS="--index-url ..."
#   JOBS      processes that share the tests                   make test JOBS=4
#   LESSONS   notebooks to execute again            make lessons LESSONS=lessons/07_guidance.ipynb
#   ASSIGNMENTS  of the students' notebooks         make exercises ASSIGNMENTS=06_samplers
#   ARGS      passed on to the command a target runs           make train ARGS="--resume"

PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
ARGS ?=
LESSONS ?= lessons/*.ipynb
ASSIGNMENTS ?= $(notdir $(wildcard solutions/[0-9]* solutions/capstone))

# Relative paths and `python -m` only: the folder may have spaces in its name.
PY = .venv/bin/python
PIP = $(PY) -m pip --disable-pip-version-check
TORCH = $(shell grep '^torch==' constraints.txt)
PEER = video-diffusion-pytorch==0.7.0

# Many small operations: one thread per process is fastest, and threads that spin steal from their neighbours.
SMALL = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
NBVAL = --nbval-lax --nbval-current-env --nbval-cell-timeout=300
# What takes longest comes first, so that no process is left alone with it: the checks, the notebooks.
SUITE = $(wildcard tests/course/test_checks.py lessons solutions tests)
# Handing out and grading with nbgrader, JupyterLab and players in a browser: they take minutes and have their own command.
CLASSROOM = $(wildcard tests/course/test_classroom.py tests/course/test_lab_browser.py tests/course/test_player_browser.py)
PYTEST = $(SMALL) $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup lab test classroom lessons exercises students train weights attack bounds bench picture tables bare pins lint clean
.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

setup: .venv/.ready  ## make .venv with the pinned versions (again only when they change)

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "MiniVDM needs Python 3.10 or newer as '$(PYTHON)'. Name another: make setup PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) comes without its venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet --constraint constraints.txt $(PIP_ARGS) "$(TORCH)" --editable '.[course,data,dev]'
	@touch $@

lab: setup  ## open JupyterLab on the first lesson
	OMP_WAIT_POLICY=passive $(PY) -m jupyterlab $(ARGS) lessons/00_start_here.ipynb

test: setup  ## run the tests, and every notebook, and compare what they print
	$(PYTEST) $(NBVAL) $(addprefix --ignore=,$(CLASSROOM)) $(ARGS) $(SUITE)

classroom: setup  ## hand out, hand in and grade with nbgrader, and open lessons in a browser (Debian's chromium)
	$(PYTEST) $(ARGS) $(CLASSROOM)

lessons: setup  ## execute the lessons again, in place
	$(SMALL) $(PY) -m minivdm.course.notebook.execute $(LESSONS) $(ARGS)

exercises: setup  ## make the students' notebooks of the solutions
	@test -d solutions || { echo "This is a student's copy: exercises/ is what you write in."; exit 1; }
	for name in $(ASSIGNMENTS); do $(PY) -m nbgrader generate_assignment $$name --force --no-db || exit 1; done
	$(PY) .ci/guide.py

students: setup  ## pack what students get, everything but solutions and tests, into dist/minivdm-students.zip
	@test -d solutions || { echo "This is a student's copy: the instructor's has solutions/."; exit 1; }
	$(PY) .ci/students.py $(ARGS)

train: setup  ## train on Moving-MNIST, on the GPU if there is one
	OMP_WAIT_POLICY=passive $(PY) -m minivdm train $(ARGS)

weights: setup  ## make all weights that ship, one recipe after the other; called again, it goes on where it stopped
	OMP_WAIT_POLICY=passive $(PY) -m minivdm recipes --make $(ARGS)

attack: setup  ## try everything that can go wrong for 12 minutes: kills, damage, bad command lines, bad inputs
	$(SMALL) $(PY) benchmarks/attack.py $(ARGS)

bounds: setup  ## test the oldest versions that pyproject.toml allows, and the newest, in environments of their own
	$(PY) .ci/bounds.py $(ARGS)

bench: .venv/.bench  ## measure speed and memory against another package; writes the README's table
	OMP_WAIT_POLICY=passive $(PY) benchmarks/throughput.py $(ARGS)

picture: setup  ## generate the clips that the README shows
	$(SMALL) $(PY) benchmarks/picture.py --out lessons/images/samples.gif $(ARGS)

tables: setup  ## put the measured tables, and the tree of files, into README and CONTRIBUTING
	$(PY) benchmarks/tables.py
	$(PY) .ci/tree.py

# Without its dependencies: it asks for torchvision and others that the compared network doesn't use.
.venv/.bench: .venv/.ready
	$(PIP) install --quiet --constraint constraints.txt $(PIP_ARGS) "$(TORCH)" --editable '.[bench]'
	$(PIP) install --quiet --no-deps $(PIP_ARGS) $(PEER)
	@touch $@

# With no extra: what sampling and training need must be enough.
bare: constraints.txt  ## install the six packages alone, into build/bare, and make a clip with them
	$(PYTHON) -m venv --clear build/bare
	build/bare/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt $(PIP_ARGS) "$(TORCH)" .
	cd build && $(SMALL) bare/bin/python -I ../.ci/bare.py

pins: setup  ## write constraints.txt anew (ARGS=--upgrade for the newest versions)
	$(PY) .ci/pins.py $(ARGS)

lint: setup  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check minivdm tests benchmarks .ci
	$(PY) -m mypy

clean:  ## remove the environment and caches; trained runs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
