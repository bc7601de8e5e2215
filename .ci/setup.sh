#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian packages, the virtual environment and its tools. Called by the Makefile.
set -euo pipefail

packages=(g++ make libjpeg62-turbo-dev zlib1g-dev nlohmann-json3-dev libgtest-dev)
if [ "$(command -v "$PYTHON")" = /usr/bin/python3 ]; then
  packages+=(python3-dev python3-venv)
fi
missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
else
  echo "her2fast: not a Debian machine; it must have a C++20 compiler, libjpeg-turbo, zlib," \
    "nlohmann-json (3.11) and GoogleTest with their headers" >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "her2fast needs these Debian packages; ask for: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "installing Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

"$PYTHON" - <<'P'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"her2fast needs Python 3.11 or newer, got {sys.version.split()[0]}; set PYTHON=...")
P
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"

# What pyproject.toml names, in one call, so that nothing is resolved twice.
mapfile -t wanted < <("$VENV/bin/python" - <<'P'
import tomllib
with open("pyproject.toml", "rb") as file:
    config = tomllib.load(file)
project = config["project"]
extras = project["optional-dependencies"]
print(*config["build-system"]["requires"], *project["dependencies"], *extras["test"],
      *extras["check"], sep="\n")
P
)
echo "installing Python packages into $VENV (the first time takes a few minutes)"
"$VENV/bin/pip" install -q -c .ci/constraints.txt "${wanted[@]}"
