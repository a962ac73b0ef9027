# Every target sets up what it needs in .venv on a fresh machine: Python 3.10 or newer and make are enough.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: demo run test servers check format docs bench soak gpu-bench gpu-quarter clean

.venv/light: pyproject.toml setup.py $(wildcard edge/compiled/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || (echo "error: Python 3.10 or newer is needed; set PYTHON=…"; exit 3)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the light runtime into .venv (once) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu]'
	@touch $@

.venv/full: pyproject.toml .venv/light
	@echo "installing what training and tests need into .venv (once) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu,train,openvino,events,notify,webrtc,kserve,ray,dev]' tensorrt-rtx
	@# it asks for the OpenCV with windows, which does not load on a headless machine
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'trackeval>=1.1'
	@# beside the other packages: this torchvision wants the torch with CUDA and does not load without a test's help
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/backbones timm==1.0.31 torchvision==0.28.0
	@# axe-core for the tests of the page; the browser that it asks for is not needed
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'axe-playwright-python>=0.1.8'
	@touch $@

demo: .venv/light
	@$(BIN)/edge demo $(ARGS)

run: .venv/light
	@$(BIN)/edge run $(ARGS)

# make test          one test after the other
# make test JOBS=2   in two processes; then what a busy machine spoils (tests/quiet.py): what mostly waits two at a time,
#                    what measures alone; one closing sentence
JOBS ?= 1
MARKS := not bench and not soak and not gpu
PYTEST := $(BIN)/python -m pytest
MANY := --dist loadfile --no-loadscope-reorder
test: .venv/full
ifeq ($(JOBS),1)
	@$(PYTEST) tests -m "$(MARKS)" $(ARGS)
else
	@skips=$$(mktemp); ended=0; \
	$(PYTEST) tests -m "$(MARKS) and not quiet" -n $(JOBS) $(MANY) --skips-later $$skips $(ARGS) || ended=$$?; \
	$(PYTEST) $$($(BIN)/python tests/quiet.py waiting) -m "$(MARKS)" -n 2 $(MANY) --skips-before $$skips --skips-later $$skips $(ARGS) || ended=$$?; \
	$(PYTEST) $$($(BIN)/python tests/quiet.py measuring) -m "$(MARKS)" --skips-before $$skips $(ARGS) || ended=$$?; \
	rm -f $$skips; exit $$ended
endif

# model servers that tests run against, with the ONNX Runtime of the tests; their needs are not those of Edgeloop
.venv-servers/ready: tests/servers/models.txt
	@test -x .venv-servers/bin/python || $(PYTHON) -m venv .venv-servers
	@echo "installing model servers into .venv-servers (once) …"
	@.venv-servers/bin/pip install --quiet --disable-pip-version-check -r tests/servers/models.txt
	@touch $@

# a Home Assistant that tests run against, as it is for this Python; elsewhere they are left out
.venv-home/ready: tests/servers/home_assistant.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || exit 0; \
	test -x .venv-home/bin/python || $(PYTHON) -m venv .venv-home; \
	echo "installing Home Assistant into .venv-home (once) …"; \
	.venv-home/bin/pip install --quiet --disable-pip-version-check --no-deps --no-compile -r tests/servers/home_assistant.txt \
	&& touch $@

# the servers, browser and compiler that tests run against, from Debian's packages and PyPI
servers: .venv-servers/ready .venv-home/ready
	@packages=$$($(PYTHON) tests/servers/needs.py) || exit; \
	root=$$(test "$$(id -u)" = 0 || echo sudo); \
	dpkg -s $$packages >/dev/null 2>&1 || { $$root apt-get update -qq && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages; }

check: .venv/full
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# the site of docs/, into site/
docs: .venv/full
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site

format: .venv/full
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: .venv/full
	@$(BIN)/python -m pytest tests/bench -m bench $(ARGS)

soak: .venv/full
	@$(BIN)/python -m pytest tests -m soak $(ARGS)

# pycuda has no wheels: it is compiled, which needs the CUDA toolkit or takes NVIDIA's Python packages (docs/gpu.md)
.venv/gpu: pyproject.toml .venv/full tests/gpu/install_pycuda.py
	@$(BIN)/python tests/gpu/install_pycuda.py || echo "pycuda could not be built: cuda-bindings is used"
	@touch $@

# make gpu-bench                     a table for the shipped model, then the tests
# make gpu-bench ENGINE=my.engine    the table for this engine instead
# make gpu-quarter                   what a card shows in 15 minutes without TensorRT
ENGINE ?=
gpu-bench: .venv/gpu
	@$(BIN)/python tests/gpu/bench_gpu.py $(ENGINE); table=$$?; \
	$(BIN)/python -m pytest tests/gpu -m gpu $(ARGS) && exit $$table

gpu-quarter: .venv/gpu
	@$(BIN)/python tests/gpu/quarter_hour.py

clean:
	rm -rf .venv .venv-servers .venv-home build dist *.egg-info
