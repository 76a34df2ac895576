#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compile the public headers in every way a user may meet them.

check_headers.py MODE --include DIR --scratch DIR [--jobs N] [--skip HEADER]... HEADER... -- COMPILER FLAG...
MODE  alone  each header in a translation unit of its own, syntax only
      twice  all headers twice in one translation unit, at each contract level, syntax only
      linked two translation units with all headers, linked and run: no definition may appear twice
      device each header alone through nvcc, device side only; a header whose text and compiler did not change
             since it last passed is not compiled again
"""
import argparse
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout


def write(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


def unit(scratch, header, suffix):
    return write(scratch / (header.replace("/", "_") + suffix), f"#include <{header}>\n")


def alone(options, compiler, suffix=".cpp", extra=("-fsyntax-only",), stamp=None):
    def one(header):
        source = unit(options.scratch, header, suffix)
        passed = options.scratch / (header.replace("/", "_") + ".passed")
        if stamp is not None and passed.exists() and passed.read_text() == stamp:
            return header, 0, ""
        code, output = run([*compiler, *extra, str(source)])
        if code == 0 and stamp is not None:
            passed.write_text(stamp)
        return header, code, output
    failures = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for header, code, output in pool.map(one, options.headers):
            if code != 0:
                failures += 1
                print(f"{header} does not compile alone:\n{output[:1500]}")
    print(f"{len(options.headers)} headers, {failures} failures")
    return failures


def twice(options, compiler):
    text = "".join(f"#include <{header}>\n" for header in options.headers)
    source = write(options.scratch / "twice.cpp", text + text)
    failures = 0
    for level in range(4):
        code, output = run([*compiler, "-fsyntax-only", f"-DFAIRLEAD_CONTRACT_LEVEL={level}", str(source)])
        if code != 0:
            failures += 1
            print(f"all headers twice, contract level {level}:\n{output[:1500]}")
    return failures


def linked(options, compiler):
    text = "".join(f"#include <{header}>\n" for header in options.headers)
    first = write(options.scratch / "first.cpp", text + "int second();\nint main() { return second(); }\n")
    second = write(options.scratch / "second.cpp", text + "int second();\nint second() { return 0; }\n")
    program = options.scratch / "linked"
    flags = [f for f in compiler[1:] if not f.startswith("-l")]
    libraries = [f for f in compiler[1:] if f.startswith("-l")]
    code, output = run([compiler[0], *flags, "-O0", str(first), str(second), "-o", str(program), *libraries])
    if code == 0:
        code, output = run([str(program)])
    if code != 0:
        print(f"two translation units with all headers:\n{output[:1500]}")
    return code


def device(options, compiler):
    digest = hashlib.sha256("\0".join(compiler).encode())
    for path in sorted(options.include.rglob("*")):
        if path.suffix in (".hpp", ".cuh"):
            digest.update(path.read_bytes())
    return alone(options, compiler, ".cu", ("-ptx", "-o", "/dev/null"), digest.hexdigest())


def main():
    arguments, compiler = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, compiler = arguments[:cut], arguments[cut + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["alone", "twice", "linked", "device"])
    parser.add_argument("--include", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip", action="append", default=[])
    parser.add_argument("headers", nargs="+")
    options = parser.parse_args(arguments)
    options.headers = [h for h in options.headers if h not in options.skip]
    for header in options.skip:
        print(f"left out: {header}")
    options.scratch.mkdir(parents=True, exist_ok=True)
    compiler += ["-I", str(options.include)]
    failures = {"alone": alone, "twice": twice, "linked": linked, "device": device}[options.mode](options, compiler)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
