# Every verb sets the environment up first where it has to. More words for the tool behind a verb
# go into ARGS (make test ARGS="-m 'not slow'"); PYTHON names the interpreter to build .venv with.
.DEFAULT_GOAL := help
.PHONY: help setup repro dial catalogue audit grid pages stale check-claims test test-faults verify lab report
.PHONY: lock clean lint

PYTHON ?=
ARGS ?=
STAMP := .venv/.stamp
# Without NUMBA_DISABLE_JIT the first import of rembg compiles for a minute; without byte code
# kept in .venv every start compiles what it imports (some machines turn it off).
ENV = PATH="$(CURDIR)/.venv/bin:$$PATH" NUMBA_DISABLE_JIT=1 PYTHONHASHSEED=0 \
      PYTHONDONTWRITEBYTECODE= PYTHONWARNINGS="ignore:IProgress not found"

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make the environment .venv from requirements.lock (happens by itself)

repro: $(STAMP) ## run what has changed of the studies, down to reports/local.html
	@git rev-parse --git-dir >/dev/null 2>&1 || $(ENV) dvc config --local core.no_scm true
	@start=$$(date +%s); $(ENV) python -m lib.run.check_studies || exit $$?; \
	$(ENV) dvc repro $(ARGS) || exit $$?; \
	echo "Done in $$(($$(date +%s) - start)) s. Open $(CURDIR)/reports/local.html"

dial: $(STAMP) ## run the study of the bias dial on drawn pictures, to reports/dial
	@git rev-parse --git-dir >/dev/null 2>&1 || $(ENV) dvc config --local core.no_scm true
	@$(ENV) dvc repro $(ARGS) pipelines/dial/dvc.yaml

catalogue: $(STAMP) ## a real shift: shop photographs search the shop's catalogue (after grocery-cpu)
	@git rev-parse --git-dir >/dev/null 2>&1 || $(ENV) dvc config --local core.no_scm true
	@$(ENV) dvc repro $(ARGS) pipelines/catalogue/dvc.yaml

audit: $(STAMP) ## how much does the background decide? MODEL=timm:resnet50 IMAGES=my/photographs
	@$(ENV) python -m lib.run.audit $(if $(MODEL),--model "$(MODEL)") \
	$(if $(IMAGES),--images "$(IMAGES)") $(if $(GALLERY),--gallery "$(GALLERY)") $(ARGS)

grid: $(STAMP) ## measure STUDY=name on many GPUs or machines over Dask (docs/scale.md)
	@git rev-parse --git-dir >/dev/null 2>&1 || $(ENV) dvc config --local core.no_scm true
	@$(ENV) python -m lib.run.grid --study "$(STUDY)" $(if $(SCHEDULER),--scheduler "$(SCHEDULER)") \
	$(if $(CLUSTER),--cluster "$(CLUSTER)") $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)

pages: $(STAMP) ## tell measured studies again from their tables: no photographs, no weights
	@$(ENV) python -m lib.run.pages $(ARGS)

# Without --max-worker-restart=0 pytest-xdist waits for ever once a worker has died.
test: $(STAMP) ## run the tests
	@$(ENV) OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
	--max-worker-restart=0 -m "not long" $(ARGS)

test-faults: $(STAMP) ## make every fault on purpose; writes docs/reliability.md (15 minutes)
	@$(ENV) OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadgroup -m fault \
	--reliability=docs/reliability.md $(ARGS)

verify: $(STAMP) ## run the demo twice from nothing and compare every table and weight (20 minutes)
	@$(ENV) python -m lib.run.verify_runs $(ARGS)

check-claims: $(STAMP) ## compare what README says with the committed tables (before a release)
	@$(ENV) python -m tests.claims

stale: $(STAMP) ## say which committed studies are older than their code, parameters or data
	@$(ENV) python -m lib.front.stale

lab: $(STAMP) ## open the notebooks in JupyterLab
	@$(ENV) jupyter lab --notebook-dir=notebooks $(ARGS)

report: ## say where the report is, and open it where there is a screen
	@test -f reports/local.html || \
	{ echo "There is no reports/local.html yet; make repro writes it." >&2; exit 1; }
	@echo "$(CURDIR)/reports/local.html"
	@case "$$(uname)$$DISPLAY$$WAYLAND_DISPLAY" in \
	Darwin*) open reports/local.html ;; \
	Linux?*) xdg-open reports/local.html >/dev/null 2>&1 || true ;; esac

lint: $(STAMP) ## check the code's style
	@$(ENV) ruff check $(ARGS) .
	@$(ENV) ruff format --check .

lock: ## write requirements.lock anew from pyproject.toml (newest: ARGS=--upgrade)
	@$(find_uv); UV_CUSTOM_COMPILE_COMMAND="make lock" "$$uv" pip compile --quiet --universal \
	--python-version 3.11 --extra dev --extra grid --generate-hashes --output-file requirements.lock $(ARGS) \
	pyproject.toml

clean: ## remove caches and half-done work (not .venv, data or reports)
	@find . \( -path './.venv*' -o -path ./.git \) -prune -o -type d \( -name __pycache__ \
	-o -name .ipynb_checkpoints -o -name .pytest_cache -o -name .ruff_cache \) -prune \
	-exec rm -rf {} +
	@find notebooks reports -name '*.failed.ipynb' -exec rm -f {} + 2>/dev/null || true
	@rm -rf data/scratch

# --- the environment -------------------------------------------------------------------------
# The stamp holds the folder that .venv was made for. Where it names another one (a moved
# checkout: scripts in .venv carry absolute paths) or python does not start, set-up runs again.
ifneq ($(shell [ "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" ] && \
         .venv/bin/python -c 'print("sound")' 2>/dev/null),sound)
$(STAMP): FORCE
endif
FORCE:

# An environment that has lost its pyvenv.cfg still starts, as the interpreter it came from.
FITS := import sys; \
        sys.exit(sys.prefix == sys.base_prefix or not (3, 11) <= sys.version_info[:2] < (3, 13))

# Sets the shell's $uv: the machine's own if it runs (a shim may be there and not run), else ours.
define find_uv
uv=uv; "$$uv" --version >/dev/null 2>&1 || uv=.venv-uv/bin/uv; \
if ! "$$uv" --version >/dev/null 2>&1; then \
  base=; for name in $(PYTHON) python3 python3.12 python3.11; do \
    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    && { base="$$name"; break; }; done; \
  if [ -z "$$base" ]; then echo "Found neither uv nor a Python of 3.11 or later. Install" \
    "Python 3.11 or 3.12, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
  echo "uv is not here: installing it into .venv-uv"; rm -rf .venv-uv; \
  "$$base" -m venv .venv-uv || { echo "$$base cannot make environments; install its venv" \
    "module (Debian, Ubuntu: python3-venv), or install uv." >&2; exit 1; }; \
  .venv-uv/bin/python -m pip install --quiet uv || exit 1; \
fi
endef

# Sets the shell's $python: the one named by PYTHON, else 3.11, else 3.12, else uv fetches 3.11.
define find_python
python="$(PYTHON)"; \
for version in 3.11 3.12; do [ -n "$$python" ] || python=$$( \
  "$$uv" python find --system --no-python-downloads $$version 2>/dev/null); done; \
[ -n "$$python" ] || python=3.11
endef

# .venv/.making is there while packages are being written: a set-up killed then is done from
# nothing. An environment without stamp (made by hand) is kept and brought to the lock.
$(STAMP): requirements.lock pyproject.toml
	@start=$$(date +%s); $(find_uv); \
	made_for=$$(cat $(STAMP) 2>/dev/null || echo "$(CURDIR)"); \
	if [ -e .venv/.making ] || [ "$$made_for" != "$(CURDIR)" ] \
	|| ! .venv/bin/python -c '$(FITS)' 2>/dev/null; then \
	  rm -rf .venv || exit 1; $(find_python); \
	  "$$uv" venv --quiet --python "$$python" .venv || exit 1; \
	  .venv/bin/python -c '$(FITS)' || { echo "The study needs Python 3.11 or 3.12;" \
	    "$$python is $$(.venv/bin/python -V). Name another: make setup PYTHON=..." >&2; \
	    rm -rf .venv; exit 1; }; \
	fi; \
	touch .venv/.making; echo "Installing requirements.lock into .venv" >&2; \
	"$$uv" pip sync --quiet --python .venv/bin/python --build-constraints requirements.lock \
	  requirements.lock || exit 1; \
	"$$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e . \
	  || exit 1; \
	echo "$(CURDIR)" > $@; rm .venv/.making; \
	echo "Environment ready in $$(($$(date +%s) - start)) s" >&2
