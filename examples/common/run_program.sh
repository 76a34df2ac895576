# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Sourced by the scripts of examples, after tests/support/setup.sh: build one program for this machine, run it, plot.

# build_example PROGRAM: sets `folder`
build_example() {
  folder=$root/build/examples
  need "${build_packages[@]}" python3-matplotlib
  # This machine's instructions: the program runs where it is built.
  configure "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-march=native -DFAIRLEAD_BUILD_TESTS=OFF \
    -DFAIRLEAD_BUILD_BENCH=OFF -DFAIRLEAD_BUILD_DOCS=OFF -DFAIRLEAD_ENABLE_CUDA=OFF
  build "$folder" "$1"
}

# run_example PROGRAM ARGUMENT...: sets `code`, to 0 or to 130 after Ctrl-C; ends the script after --help and errors
run_example() {
  local program=$1
  shift
  trap : INT # Ctrl-C is for the program: it ends with what it has, and the plot is still drawn
  code=0
  "$folder/examples/$program" "$@" || code=$?
  trap - INT
  case " $* " in *" --help "* | *" -h "*) exit "$code" ;; esac
  [ "$code" = 0 ] || [ "$code" = 130 ] || exit "$code"
}

# plot_example SCRIPT FOLDER
plot_example() {
  # Debian's Python holds Debian's matplotlib; another python3 may come first in PATH.
  local python=/usr/bin/python3
  [ -x "$python" ] || python=python3
  "$python" "$root/examples/$1" "$2" || [ "$code" = 130 ] # so early that there is nothing to draw
}
