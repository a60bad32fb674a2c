# Everything runs in .venv, which the first target that needs it makes.
#   make run                 environment, then every notebook headless, then an index page
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu    torch from another index

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT := papermill_runs/latest
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))
SOLUTIONS := $(sort $(wildcard notebooks/solutions/[0-9][0-9]_*.ipynb))
BENCHMARKS := $(filter-out tests/benchmarks/record.py,$(sort $(wildcard tests/benchmarks/*.py)))
SWEEPS := $(filter-out %/reference.yaml,$(sort $(wildcard papermill_runs/*.yaml)))
BASES := papermill_runs/bases/tiny_width96_depth2 papermill_runs/bases/tiny_width128_depth3
TORCH := $(shell sed -n 's/^torch==/torch==/p' requirements.lock)
EXTRAS := dev,offline,openai,convert,heic,serve,ray
TEST_JOBS ?= auto

export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false

# JupyterLab refuses to run as root, as in a container, unless it is told to
LAB := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: install run solutions quickstart test lint lab bench wheel site lock check-pythons check-versions
.PHONY: samples clean tiny-base tiny-ureca tiny-together full-recipe ablations reproduce

install: $(READY)

run: $(READY)
	$(BIN)/ureca run $(NOTEBOOKS) --out $(OUT)

solutions: $(READY)
	$(BIN)/ureca run $(SOLUTIONS) --out $(OUT)/solutions

quickstart: $(READY)
	$(BIN)/ureca run notebooks/00_quickstart.ipynb --out $(OUT)

# the files of tests are shared among workers, one thread each, so that they do not fight for cores
test: export OMP_NUM_THREADS := 1
test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(READY)
	$(BIN)/jupyter lab $(LAB) --notebook-dir . notebooks/00_quickstart.ipynb

bench: $(READY)
	for script in $(BENCHMARKS); do $(BIN)/python $$script || exit 1; done

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make run PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet -c requirements.lock -e ".[$(EXTRAS)]"
	touch $@

# the package to install elsewhere; the course, the samples and the tiny checkpoints are in it
wheel: $(READY)
	rm -rf dist
	$(BIN)/hatchling build -t wheel

# course and API to read in a browser: site/index.html. Search needs a server, such as
# python -m http.server -d site
site: $(READY)
	$(BIN)/python -m pip install --quiet -c requirements.lock -e ".[site]"
	$(BIN)/python .ci/site.py

# the pins, from an environment that holds what pyproject.toml asks for
lock: $(READY)
	{ echo "# exact versions of the environment that the tests run in; made by 'make lock'"; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

# asks the resolver whether the pins can be installed on the other Pythons, installing nothing, and
# tests a part of the package on those that are on this machine. Needs the package index
check-pythons: $(READY)
	for version in 3.12 3.13; do \
	  $(BIN)/python -m pip install --quiet --dry-run --ignore-installed \
	    --only-binary=:all: --python-version $$version --target $(VENV)/none \
	    -r requirements.lock && echo "the pins resolve on Python $$version" || exit 1; done
	.ci/pythons

# the model's tests beside the lowest and the newest transformers, and torch where TORCH_INDEX has it
check-versions: $(READY)
	TORCH_INDEX=$(TORCH_INDEX) .ci/versions

# the masks of the sample photos, from their hand-drawn polygons, and sentences about them
samples: $(READY)
	$(BIN)/python data_samples/draw.py
	$(BIN)/python data_samples/zero_shot.py

# the committed base, and the committed model on it; how long it took is in their README.md
tiny-base: $(READY)
	$(BIN)/ureca train-base --out data_samples/tiny_base

tiny-ureca: $(READY)
	$(BIN)/ureca train-recipe --base data_samples/tiny_base --out data_samples/tiny_ureca

# captions of the committed model, each region alone and by eight beams (the paper captions each
# alone), and chosen together; on the test scenes, and on some that nothing was chosen by
TOGETHER := papermill_runs/together
said = $(TOGETHER)/captions.work/$(1).jsonl
say = $(BIN)/ureca predict --model data_samples/tiny_ureca --data $(2) $(3) --out $(call said,$(1))
against = $(BIN)/ureca evaluate $(call said,$(1)) --compare $(call said,$(2)) \
	--out $(TOGETHER)/$(1).json
tiny-together: $(READY)
	$(call say,greedy_test,scenes:test:500)
	$(call say,together_test,scenes:test:500,--together)
	$(call say,beams_test,scenes:test:500,--beams 8)
	$(call say,greedy_unseen,scenes:test:9000-9100)
	$(call say,together_unseen,scenes:test:9000-9100,--together)
	$(call say,beams_unseen,scenes:test:9000-9100,--beams 8)
	$(call against,together_test,greedy_test)
	$(call against,beams_test,greedy_test)
	$(call against,together_unseen,greedy_unseen)
	$(call against,beams_unseen,greedy_unseen)

# one square, tiles, and tiles that know their place, at equal steps, more than the sweeps'; one
# square and tiles for as long as the committed model, at another seed; what pairs of captions say
FULL := papermill_runs/full_recipe
RECIPE := $(BIN)/ureca train-recipe --base data_samples/tiny_base
EQUAL := --data scenes:train:2000 --steps-1 400 --steps-2 900
compare = $(BIN)/ureca evaluate $(FULL)/$(1).work/predictions-*.jsonl --metrics none \
	--compare $(FULL)/$(2).work/predictions-*.jsonl --out $(FULL)/$(3).json
full-recipe: $(READY)
	$(RECIPE) --mask single $(EQUAL) --out $(FULL)/single
	$(RECIPE) $(EQUAL) --out $(FULL)/tiles
	$(RECIPE) --tile-embedding $(EQUAL) --out $(FULL)/tile_embedding
	$(RECIPE) --mask single --seed 1 --out $(FULL)/single_longer_seed_1
	$(RECIPE) --seed 1 --out $(FULL)/tiles_longer_seed_1
	$(call compare,tiles,single,tiles_less_one_square)
	$(call compare,tile_embedding,tiles,tile_embedding_less_tiles)
	$(call compare,tiles_longer_seed_1,single_longer_seed_1,tiles_less_one_square_longer)

# every run of every sweep that has no record yet, from the committed base and from two smaller
# ones, which are trained where a run needs them; goes on where it was stopped. Without
# papermill_runs/sweeps/runs it measures all anew
ablations: $(READY)
	if $(BIN)/ureca sweep papermill_runs/table_4_model_size.yaml --keep --dry-run | \
	  grep -q ': to run: .*variant'; then $(MAKE) $(BASES); fi
	$(BIN)/ureca sweep $(SWEEPS) --jobs 2 --keep

papermill_runs/bases/tiny_width%: | $(READY)
	$(BIN)/ureca train-base --out $@ --width $(firstword $(subst _depth, ,$*)) \
	  --depth $(lastword $(subst _depth, ,$*))

# every notebook at the settings of papermill_runs/reference.yaml, into papermill_runs/reference
reproduce: $(READY)
	$(BIN)/ureca reference

clean:
	rm -rf $(VENV) $(OUT) dist site .pytest_cache .ruff_cache .hypothesis
