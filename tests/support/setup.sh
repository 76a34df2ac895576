# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Sourced by the run scripts (bash). Installs what is missing on Debian or Ubuntu, configures, builds, and says so.
# Sets `root` (the project) and `jobs`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
jobs=${JOBS:-$(nproc)}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}  # the library threads itself; BLAS threads would compete
started=$SECONDS

say() { printf '\n== %s  [%d s]\n' "$*" $((SECONDS - started)); }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    echo "error: this needs root or sudo: $*" >&2
    return 1
  fi
}

# need PACKAGE...: install those that dpkg does not know. Where there is no apt the packages are taken for present, and
# the configure step names what it misses.
need() {
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || return 0
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  if [ -z "${apt_updated:-}" ]; then
    as_root apt-get update -qq || return 1
    apt_updated=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_optional PACKAGE...: the same, but go on without what cannot be had.
need_optional() {
  local package
  for package in "$@"; do
    need "$package" || echo "going on without $package"
  done
}

build_packages=(g++ cmake ninja-build libopenblas-dev libopenmpi-dev openmpi-bin ccache python3)

# configure FOLDER OPTION...: quiet when all is well.
configure() {
  local folder=$1
  shift
  say "configuring $(basename "$folder")"
  mkdir -p "$folder"
  cmake -G Ninja -S "$root" -B "$folder" "$@" >"$folder/configure.log" 2>&1 ||
    { cat "$folder/configure.log"; return 1; }
  grep -E 'fairlead' "$folder/configure.log" || true
}

# build FOLDER TARGET...
build() {
  local folder=$1
  shift
  say "building $(basename "$folder")"
  cmake --build "$folder" --parallel "$jobs" ${1:+--target "$@"}
}
