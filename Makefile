# make demo      the whole path on videos made here: encode, train, sample (about 5 minutes on 2 cores)
# make test      lint, types and the default tests (minutes on 2 cores once set up, no network, no GPU)
# make test-all  the slow tests too; those of a browser must run where there is Chromium
# Each sets up .venv/ first, from constraints.txt, where it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: demo demo-plan docs test test-all lint

demo: demo-plan .venv/installed
	rm -rf $(DEMO)
	@echo "1/4 making clips"
	$(BIN)/python benchmarks/phantom.py $(DEMO)/videos > /dev/null
	@echo "2/4 encoding them"
	$(BIN)/vidlat encode --input $(DEMO)/videos --out $(DEMO)/latents.zarr --vae tiny \
		--stack 16 --stretch 1 --size 64
	@echo "3/4 training"
	$(BIN)/vidlat train --latents $(DEMO)/latents.zarr --out $(DEMO)/run --steps 400 --batch 4 \
		--learning-rate 5e-4 --ema-decay 0.99 --validate-every 200
	@echo "4/4 sampling"
	$(BIN)/vidlat sample --run $(DEMO)/run --out $(DEMO)/samples -n 6
	@echo
	@echo "videos          $(DEMO)/videos"
	@echo "cache           $(DEMO)/latents.zarr      look: $(BIN)/vidlat info $(DEMO)/latents.zarr"
	@echo "run             $(DEMO)/run               look: $(BIN)/tensorboard --logdir $(DEMO)"
	@echo "sample videos   $(DEMO)/samples"
	@echo "contact sheet   $(DEMO)/samples/contact_sheet.png"

demo-plan:
	@echo "Makes in $(DEMO)/: ten generated clips and a real one, their latents, a model, and six videos it draws."
	@echo "On two idle cores: 1 clips 10 s, 2 encoding 20 s, 3 training 2 to 4 min, 4 sampling 30 s. The first time,"
	@echo "installation into .venv/ takes minutes before that."

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "site            build/site/index.html"

# Two processes of one thread each: threads of both that wait for each other would take most of the time.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

test-all: export VIDLAT_REQUIRE_BROWSER = $(if $(shell command -v chromium),1,)
test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m '' --hypothesis-profile thorough
	# What a network computes, as on a CPU without AVX-512, unless this is one.
	! grep -qw avx512f /proc/cpuinfo || OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \
		$(BIN)/pytest -q -n 2 --dist loadfile tests/encode tests/evaluate tests/fit tests/sample tests/train

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vidlat needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
