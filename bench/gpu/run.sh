#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds, tests and measures the CUDA kernels on a machine with a GPU and no network, in under 9 minutes;
# README.md says what it needs. usage: bench/gpu/run.sh [OUT] [--no-gpu]
# OUT/gpu.json is written whatever happens; `ran` says whether a GPU ran anything.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=out/gpu
no_gpu=
for argument in "$@"; do
  case "$argument" in
    --no-gpu) no_gpu=--no-gpu ;;
    -*) echo "usage: bench/gpu/run.sh [OUT] [--no-gpu]" >&2; exit 2 ;;
    *) out=$argument ;;
  esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
site=$out/site
prefix=$out/prefix
steps=$out/steps.json
rm -f "$steps" "$out/gpu.json"
rows=()
export PATH=/usr/local/cuda/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}

# step NAME SECONDS COMMAND...: its log, its time, its verdict.
step() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  echo "== $name"
  [ -z "$no_gpu" ] || limit=$((5 * limit))  # no hurry there, and few cores
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  rows+=("\"$name\": {\"exit\": $code, \"seconds\": $((SECONDS - start))}")
  (IFS=,; echo "{${rows[*]}}") >"$steps"
  [ $code -eq 0 ] || { tail -n 25 "$out/$name.log"; echo "$name failed ($code)"; }
  return $code
}

failed() {  # a result in any case
  printf '{"ran": false, "reason": "%s failed", "steps": %s}\n' "$1" "$(cat "$steps")" >"$out/gpu.json"
  cat "$out/gpu.json"
  exit 1
}

# What the machine lacks: Debian packages and wheels of bundle.sh, in folders of their own.
if compgen -G "bench/gpu/bundle/*" >/dev/null; then
  step unpack 60 bash -ec '
    for file in bench/gpu/bundle/*.deb; do dpkg -x "$file" "$1"; done
    "$2" -m pip install -q --no-index --no-deps --upgrade --target "$3" bench/gpu/bundle/*.whl
  ' unpack "$prefix" "$python" "$site" || failed unpack
  export CMAKE_PREFIX_PATH=$prefix/usr
  export CPATH=$prefix/usr/include:$prefix/usr/include/x86_64-linux-gnu
  export LIBRARY_PATH=$prefix/usr/lib/x86_64-linux-gnu LD_LIBRARY_PATH=$prefix/usr/lib/x86_64-linux-gnu
fi
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}

# native: code for this machine's GPU alone; without one, what a release is built for.
architectures=native
[ -n "$no_gpu" ] && architectures=75-real
step build 220 "$python" -m pip install --no-index --no-build-isolation --no-deps --upgrade --target "$site" \
  -C build-dir=build/gpu -C cmake.define.HER2FAST_CUDA=ON \
  -C cmake.define.HER2FAST_CUDA_ARCHITECTURES=$architectures . || failed build

# In their own folder, so that the package tested is the one just built.
mapfile -t tests < <(grep -l needs_cuda tests/python/test_*.py)
if [ -n "$no_gpu" ]; then
  export HER2FAST_REQUIRE_CUDA=0
else
  export HER2FAST_REQUIRE_CUDA=1
fi
step tests 140 "$python" -m pytest -q -p no:cacheprovider -m needs_cuda "${tests[@]}"
tested=$?
tail -n 4 "$out/tests.log"

step measure 170 "$python" bench/gpu/run.py $no_gpu --steps "$steps" --json "$out/gpu.json" || failed measure
cat "$out/gpu.json"
exit $tested
