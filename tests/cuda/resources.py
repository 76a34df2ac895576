#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compile every kernel for real architectures, record what ptxas says about it, and fail if one spills registers.

resources.py SOURCE TABLE ARCHITECTURE... -- COMPILER FLAG...
Writes TABLE (architecture, kernel, registers, shared bytes, stack bytes) and prints the largest.
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_REGISTERS = 128  # two blocks of 256 threads a multiprocessor at least


def measure(output):
    """Yields (architecture, mangled kernel, registers, shared bytes, stack bytes, spilled bytes)."""
    name = arch = None
    stack = spilled = 0
    for line in output.splitlines():
        entry = re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line)
        if entry:
            name, arch = entry.groups()
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if frame:
            stack, spilled = int(frame.group(1)), int(frame.group(2)) + int(frame.group(3))
        used = re.search(r"Used (\d+) registers", line)
        if used and name:
            shared = re.search(r"(\d+) bytes smem", line)
            yield arch, name, int(used.group(1)), int(shared.group(1)) if shared else 0, stack, spilled
            name = None


def readable(names):
    try:
        done = subprocess.run(["c++filt", *names], stdout=subprocess.PIPE, text=True, check=True)
        return dict(zip(names, done.stdout.splitlines()))
    except (OSError, subprocess.CalledProcessError):
        return {name: name for name in names}


def main():
    cut = sys.argv.index("--")
    source, table, *architectures = sys.argv[1:cut]
    compiler = sys.argv[cut + 1:]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for arch in architectures:
            command = [*compiler, f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v", source, "-o", str(Path(scratch) / "all.cubin")]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            if done.returncode != 0:
                sys.exit(f"sm_{arch}: does not compile\n{done.stdout[:3000]}")
            here = list(measure(done.stdout))
            if not here:
                sys.exit(f"sm_{arch}: ptxas reported no kernel")
            found += here
    names = readable(sorted({row[1] for row in found}))
    found.sort(key=lambda row: (row[0], -row[2], names[row[1]]))
    with open(table, "w") as out:
        out.write("architecture,registers,shared_bytes,stack_bytes,spilled_bytes,kernel\n")
        for arch, name, registers, shared, stack, spilled in found:
            out.write(f'{arch},{registers},{shared},{stack},{spilled},"{names[name]}"\n')
    bad = [row for row in found if row[5] > 0 or row[2] > MOST_REGISTERS]
    for arch in sorted({row[0] for row in found}):
        rows = [row for row in found if row[0] == arch]
        print(f"{arch}: {len(rows)} kernels, at most {rows[0][2]} registers ({names[rows[0][1]][:80]})")
    for arch, name, registers, _, _, spilled in bad:
        print(f"{arch}: {registers} registers, {spilled} bytes spilled: {names[name]}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
