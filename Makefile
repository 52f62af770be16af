# make train   trains PPO on a real MuJoCo task, from nothing but Python and make
# make test    runs the tests, but for those that take long
# make quick   runs a minute of them: pure functions, files and tables
# make slow    runs those that take long: learning, drills, many processes
# make drills  brings faults about: kills, full disks, damaged files (two hours; python -m jumar.drills --quick: 15 minutes)
# make mutants runs jumar verify on copies of Jumar with one error each (some three minutes)
# make figures draws the figures of the textbooks into the folder figures
# make check   lint, types and docs, as CI runs them beside the tests
# make ranges  tries the wheel with the oldest and the newest dependencies

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: train test quick slow drills mutants figures check docs ranges lock clean

train: $(VENV)/.train
	$(VENV)/bin/jumar train ppo HalfCheetah-v5 --total-timesteps 1000000
	@echo "(the command is $(VENV)/bin/jumar; after '. $(VENV)/bin/activate' it is jumar)"

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

QUICK := estimators networks critics experience report runs

quick: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(QUICK:%=tests/%) \
		tests/test_fields.py tests/test_schedules.py tests/test_settings.py tests/test_spaces.py tests/test_trajectory.py

slow: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m slow

drills: $(VENV)/.test
	$(VENV)/bin/python -m jumar.drills

mutants: $(VENV)/.test
	$(VENV)/bin/python tests/mutants.py

figures: $(VENV)/.train
	$(VENV)/bin/jumar figure all --out figures

check: $(VENV)/.check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(MAKE) docs

# With the tests that need Sphinx, which `make test` does not install.
docs: $(VENV)/.check
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs docs/_build
	$(VENV)/bin/python -m pytest tests/test_docs.py tests/test_formulas.py tests/test_charts.py -k "tables or formulas or charts"

# The stamp of the larger set counts for the smaller one, so that the two commands never undo each other's set-up.
$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Jumar needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.train: $(VENV)/.venv requirements/train.txt pyproject.toml
	@echo "installing what training needs (once) ..."
	$(PIP) install --require-hashes --requirement requirements/train.txt
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	touch $@

$(VENV)/.test: $(VENV)/.train requirements/test.txt
	@echo "installing what the tests need (once) ..."
	$(PIP) install --require-hashes --requirement requirements/test.txt
	touch $@

$(VENV)/.check: $(VENV)/.test requirements/check.txt
	$(PIP) install --require-hashes --requirement requirements/check.txt
	touch $@

# With the oldest and the newest dependencies that pyproject.toml allows, and on another Python where there is one.
ranges: $(VENV)/.train
	requirements/try_ranges.sh $(VENV)/bin/python

# Needs uv. No package index is named in the lock files.
lock:
	requirements/lock.sh

clean:
	rm -rf $(VENV) docs/_build
