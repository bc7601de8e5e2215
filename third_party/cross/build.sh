#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds libher2fast, its C and C++ tests and the examples for other machines, by Debian's
# compilers, and runs them under wine and qemu. See README.md beside this file.
#   build.sh [windows-x86_64] [linux-aarch64]      (both, when none is named)
# WORK (build/cross), JOBS, DEBIAN_MIRROR (http://deb.debian.org) and TESTS (a regular
# expression of ctest) are read from the environment.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_folder=$(cd "$here/../.." && pwd)
mkdir -p "${WORK:=$source_folder/build/cross}"
work=$(cd "$WORK" && pwd)
jobs=${JOBS:-$(nproc)}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
# What the library and its tests need, as Debian calls the sources.
libraries=(libjpeg-turbo zlib nlohmann-json3 googletest)

say() { echo "cross: $*"; }
stop() { echo "cross: $*" >&2; exit 1; }

# The package of each program that is not there.
need() {
  local missing=() program package
  while [ $# -gt 0 ]; do
    program=$1 package=$2
    shift 2
    command -v "$program" >/dev/null || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] || stop "needs Debian's packages: apt-get install ${missing[*]}"
}

# Sources by apt, which checks Debian's signatures, with lists of its own: the machine's
# configuration is neither needed nor changed, and nobody has to be root.
fetch() {
  if [ -e "$work/sources/.complete" ]; then return; fi
  need apt-get apt dpkg-source dpkg-dev
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -r "$keys" ] || stop "needs Debian's packages: apt-get install debian-archive-keyring"
  local release
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ -n "$release" ] || stop "/etc/os-release names no release of Debian"
  rm -rf "$work/sources" "$work/apt"
  mkdir -p "$work/sources" "$work/apt/lists/partial" "$work/apt/archives/partial"
  printf 'deb-src [signed-by=%s] %s %s main\n' \
    "$keys" "$mirror/debian" "$release" \
    "$keys" "$mirror/debian-security" "$release-security" >"$work/apt/sources.list"
  local options=(-q -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=
    -o Acquire::Languages=none)
  say "fetching ${libraries[*]} of $release"
  if ! (cd "$work/sources" && apt-get "${options[@]}" update &&
        apt-get "${options[@]}" source "${libraries[@]}") >"$work/fetch.log" 2>&1; then
    tail -20 "$work/fetch.log" >&2
    stop "the sources did not come from $mirror; the whole of it stands in $work/fetch.log"
  fi
  touch "$work/sources/.complete"
}

# Runs a step quietly; on failure shows the end of what it said.
step() {
  local log=$1
  shift
  if ! "$@" >>"$log" 2>&1; then
    tail -40 "$log" >&2
    stop "failed: $* (the whole of it stands in $log)"
  fi
}

# One library of Debian's sources into the target's prefix; by a CMakeLists.txt of ours
# where there is a folder of its name beside this script.
install_library() {
  local target=$1 name=$2
  shift 2
  local prefix=$work/$target/prefix build=$work/$target/libraries/$name sources
  if [ -e "$prefix/.$name" ]; then return; fi
  sources=$(find "$work/sources" -mindepth 1 -maxdepth 1 -type d -name "$name-*")
  [ -d "$sources" ] || stop "no folder of $name in $work/sources; remove that folder and run again"
  say "$target: $name from ${sources##*/}"
  rm -rf "$build"
  mkdir -p "$build"
  if [ -e "$here/$name/CMakeLists.txt" ]; then
    set -- "-DSOURCE=$sources" "$@"
    sources=$here/$name
  fi
  step "$build.log" cmake -S "$sources" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_TOOLCHAIN_FILE="$here/$target.cmake" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR:STRING=lib \
    -DCMAKE_POLICY_VERSION_MINIMUM=3.5 -DCMAKE_POSITION_INDEPENDENT_CODE=ON "$@"
  step "$build.log" cmake --build "$build" -j "$jobs"
  step "$build.log" cmake --install "$build"
  touch "$prefix/.$name"
}

# Static ones alone, so that a host needs nothing beside the library.
install_libraries() {
  local target=$1
  mkdir -p "$work/$target/prefix" "$work/$target/libraries"
  install_library "$target" libjpeg-turbo -DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF
  install_library "$target" zlib
  install_library "$target" nlohmann-json3 -DJSON_BuildTests=OFF
  install_library "$target" googletest -DBUILD_GMOCK=OFF
}

build() {
  local target=$1 emulator=$2 emulator_package=$3
  local build=$work/$target/her2fast
  install_libraries "$target"
  say "$target: her2fast"
  : >"$work/$target/her2fast.log"
  step "$work/$target/her2fast.log" cmake -S "$source_folder" -B "$build" -G Ninja \
    -DCMAKE_TOOLCHAIN_FILE="$here/$target.cmake" -DCMAKE_PREFIX_PATH="$work/$target/prefix" \
    -DHER2FAST_PYTHON=OFF -DHER2FAST_TESTS=ON
  step "$work/$target/her2fast.log" cmake --build "$build" -j "$jobs"
  if ! command -v "$emulator" >/dev/null; then
    say "$target: built; nothing was run, for want of $emulator (apt-get install $emulator_package)"
    return
  fi
  say "$target: tests under $emulator"
  # PATH may have one of another release.
  local status=0 ctest
  ctest=$(sed -n 's/^CMAKE_CTEST_COMMAND:INTERNAL=//p' "$build/CMakeCache.txt")
  "$ctest" --test-dir "$build" -j "$jobs" --output-on-failure ${TESTS:+-R "$TESTS"} \
    >"$work/$target/tests.log" 2>&1 || status=$?
  grep -vE '^ *(Start|[0-9]+/[0-9]+ Test .* Passed)' "$work/$target/tests.log" || true
  [ $status -eq 0 ] || stop "$target: tests failed"
}

need cmake "cmake (3.26 or newer)" ninja ninja-build
export WINEDEBUG=${WINEDEBUG:--all} WINEPREFIX=${WINEPREFIX:-$work/wine}
[ $# -gt 0 ] || set -- windows-x86_64 linux-aarch64
for target in "$@"; do
  case $target in
    windows-x86_64) need x86_64-w64-mingw32-g++-posix g++-mingw-w64-x86-64-posix nasm nasm ;;
    linux-aarch64) need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu ;;
    *) stop "knows windows-x86_64 and linux-aarch64, got $target" ;;
  esac
done
fetch
for target in "$@"; do
  case $target in
    windows-x86_64) build "$target" wine "wine wine64" ;;
    linux-aarch64) build "$target" qemu-aarch64 qemu-user ;;
  esac
done
