#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a network: what a GPU machine without one may lack, into bench/gpu/bundle (not committed).
# usage: bench/gpu/bundle.sh [PYTHON_VERSION, such as 3.12]
set -euo pipefail
cd "$(dirname "$0")"
version=${1:-3.12}
rm -rf bundle
mkdir bundle
cd bundle
apt-get download libjpeg62-turbo-dev libjpeg62-turbo zlib1g zlib1g-dev nlohmann-json3-dev
fetch() {
  "${PYTHON:-python3}" -m pip download -q --only-binary=:all: --python-version "$version" --implementation cp \
    --abi "cp${version/./}" --abi abi3 --abi none --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 "$@"
}
fetch hypothesis pydantic pillow  # with what they need, in versions that fit each other
fetch --no-deps shapely openslide-bin nvidia-nvjpeg nvidia-nvjpeg-cu12  # nvJPEG of either CUDA
ls
