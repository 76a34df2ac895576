# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Sourced by the run scripts, after setup.sh.

# write_king_james FILE: the King James text, a verse a line, from Debian's bible-kjv, unless FILE is there.
write_king_james() {
  [ ! -s "$1" ] || return 0
  if ! command -v bible >/dev/null; then
    echo "error: no program 'bible' (Debian: bible-kjv) to write the text with; give --text FILE" >&2
    return 1
  fi
  say "writing the text"
  # The number in front of a verse goes.
  bible -f 'gen1:1-rev22:21' </dev/null | sed 's/^[^ ]* //' >"$1.new" && mv "$1.new" "$1"
}
