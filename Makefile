# SPDX-License-Identifier: Apache-2.0
# Every target sets itself up; a second call takes seconds. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc)
NATIVE := CMakeLists.txt pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')
CPP := $(shell find csrc tests/cpp tests/cuda_on_host tests/async_cuda tests/fuzz examples -name '*.cpp' -o -name '*.h' -o -name '*.cu')
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-cpp test-sanitized test-python check fuzz format bench study study-curves golden demo-areas demo-slides cross clean

help:
	@echo "make demo   score the six synthetic slides that ship"
	@echo "make test   C++ tests (plain, then under ASan and UBSan), then Python tests"
	@echo "make check  ruff, strict mypy, clang-format"
	@echo "make fuzz   fuzz the readers for FUZZ_SECONDS each (3600); needs clang"
	@echo "make golden write the exact areas of the shipped slides anew (name the change in CHANGELOG)"
	@echo "make demo-slides  draw the shipped slides anew, then golden"
	@echo "make study  what each stage of training is worth, on phantoms, about an hour; study-curves: noise, cohort"
	@echo "make cross  build and test libher2fast for Windows and aarch64 (third_party/cross/README.md)"
	@echo "make bench  all benchmarks, JSON into bench/results"

setup: $(VENV)/.installed

# Tools and libraries; again only when what is asked for changes.
$(VENV)/.tools: pyproject.toml .ci/setup.sh .ci/constraints.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash .ci/setup.sh
	@touch $@

# The package itself, editable; the build folder is kept, so a change rebuilds little.
$(VENV)/.installed: $(VENV)/.tools $(NATIVE)
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/pip install -q --no-build-isolation --no-deps -e .
	@touch $@

demo: setup
	$(BIN)/her2fast demo -o her2fast-demo

test: test-cpp test-sanitized test-python

# CUDA code has been compiled by setup where nvcc is, for every architecture; here its sources run on the CPU.
test-cpp: setup
	$(BIN)/cmake -S . -B build/test -G Ninja -DHER2FAST_PYTHON=OFF -DHER2FAST_TESTS=ON \
	  -DHER2FAST_TORCH=ON -DHER2FAST_CUDA=OFF >/dev/null
	$(BIN)/cmake --build build/test -j $(JOBS)
	$(BIN)/ctest --test-dir build/test --output-on-failure -j $(JOBS)

test-sanitized: setup
	$(BIN)/cmake -S . -B build/sanitized -G Ninja -DHER2FAST_PYTHON=OFF -DHER2FAST_TESTS=ON \
	  -DHER2FAST_SANITIZE=ON -DHER2FAST_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	$(BIN)/cmake --build build/sanitized -j $(JOBS)
	$(BIN)/ctest --test-dir build/sanitized --output-on-failure -j $(JOBS)

test-python: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check python tests bench
	$(BIN)/ruff format --check python tests bench
	$(BIN)/mypy
	@command -v clang-format >/dev/null || { echo "make check needs clang-format: apt-get install clang-format"; exit 1; }
	clang-format --dry-run -Werror $(CPP)
	@if [ -n "$(CLANGXX)" ]; then $(MAKE) fuzz FUZZ_SECONDS=60; else \
	  echo "make check fuzzed nothing: no clang++ here (apt-get install clang)"; fi

# Findings are left in build/fuzz/corpus as crash-*; each becomes a case of the corpus.
FUZZ_SECONDS ?= 3600
FUZZ_TARGETS := fuzz_directory fuzz_ndpi fuzz_slide fuzz_tile
CLANGXX ?= $(shell command -v clang++ || command -v clang++-14)
fuzz: setup
	@[ -n "$(CLANGXX)" ] || { echo "make fuzz needs clang: apt-get install clang"; exit 1; }
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER=$(CLANGXX) -DHER2FAST_FUZZ=ON \
	  -DHER2FAST_PYTHON=OFF -DHER2FAST_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	$(BIN)/cmake --build build/fuzz -j $(JOBS) --target $(FUZZ_TARGETS)
	$(BIN)/python tests/fuzz/seeds.py build/fuzz/corpus
	@for name in $(FUZZ_TARGETS); do \
	  echo "== $$name"; build/fuzz/tests/fuzz/$$name build/fuzz/corpus/$$name -max_total_time=$(FUZZ_SECONDS) \
	    $$(cat build/fuzz/corpus/$$name.options) -timeout=5 -rss_limit_mb=1024 \
	    -artifact_prefix=build/fuzz/corpus/ -print_final_stats=1 -verbosity=0 || exit 1; done

format: setup
	$(BIN)/ruff check --fix python tests bench
	$(BIN)/ruff format python tests bench
	clang-format -i $(CPP)

bench: setup
	@for run in bench/*/run.py; do \
	  name=$$(basename $$(dirname $$run)); \
	  echo "== $$name"; $(BIN)/python $$run --json bench/results/$$name.json || exit 1; done

# Synthetic slides, training, figures into docs/study; goes on where it was stopped.
WORK ?= out/study
study study-curves: setup
	$(BIN)/python bench/study/study.py --work $(WORK) $(if $(filter study-curves,$@),--curves)

# After a change of package, kernels or shipped slides: the areas `doctor --verify` compares with.
golden demo-areas: setup
	$(BIN)/python -m her2fast.golden

# Needs SciPy (the extra "train").
demo-slides: setup
	$(BIN)/python -m her2fast.phantom.demo_slides -o python/her2fast/data/demo
	$(MAKE) golden

# CROSS: windows-x86_64, linux-aarch64 or both.
cross: $(VENV)/.tools
	JOBS=$(JOBS) third_party/cross/build.sh $(CROSS)

clean:
	rm -rf build her2fast-demo
