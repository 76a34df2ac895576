# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Sourced by tests of an example's command line: PROGRAM SCRATCH_FOLDER are the script's arguments.
program=$1 scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch"
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# expect TEXT arguments...: exit code 2 and a message that holds TEXT
expect() {
  local text=$1 printed code
  shift
  printed=$("$program" --plain --out "$scratch/out" "$@" 2>&1)
  code=$?
  [[ $code -eq 2 && $printed == *"$text"* ]] || fail "'$*' gave code $code and '$printed'; expected code 2 and '$text'"
}
