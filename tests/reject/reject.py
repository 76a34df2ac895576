#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Check that misuse does not compile, and that the first lines of the message say what to do.

reject.py FILE... -- COMPILER FLAG...

A file must compile as it stands (the positive control) and must fail with -DREJECT_x for each section
    #if defined(REJECT_x)  // expect: text [| other text ...]
The texts must all occur in the first error and the notes that follow it, read without line breaks and with quotes of
any kind made equal. `expect-gcc:` and `expect-clang:` are for one compiler only.
"""
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FIRST_LINES = 14  # of the message, from its first error on: what one reads before scrolling


def compile_with(compiler, source, define=None):
    command = [*compiler, "-fsyntax-only", *([f"-D{define}"] if define else []), str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout


def plain(text):
    return " ".join(re.sub("[‘’`']", "'", text).split())


def head(output):
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if re.search(r"\berror:", line)), 0)
    return "\n".join(lines[first:first + FIRST_LINES])


def sections(source, is_clang):
    found = []
    for match in re.finditer(r"#\s*if defined\((REJECT_\w+)\)([^\n]*)", source.read_text()):
        expected = []
        for kind, text in re.findall(r"expect(-gcc|-clang)?:\s*(.*?)(?=\s*//|\s*$)", match.group(2)):
            if kind in ("", "-clang" if is_clang else "-gcc"):
                expected += [part.strip() for part in text.split("|") if part.strip()]
        found.append((match.group(1), expected))
    return found


def main():
    if "--" not in sys.argv:
        print(__doc__)
        return 2
    cut = sys.argv.index("--")
    sources, compiler = [Path(p) for p in sys.argv[1:cut]], sys.argv[cut + 1:]
    is_clang = "clang" in subprocess.run([compiler[0], "--version"], capture_output=True, text=True).stdout
    jobs = []
    for source in sources:
        cases = sections(source, is_clang)
        if not cases:
            print(f"{source.name}: no section REJECT_x")
            return 1
        jobs.append((source, None, []))
        jobs += [(source, define, expected) for define, expected in cases]

    def one(job):
        source, define, expected = job
        code, output = compile_with(compiler, source, define)
        if define is None:
            return [] if code == 0 else [f"{source.name}: the positive control does not compile:\n{head(output)}"]
        where = f"{source.name} {define}"
        if not expected:
            return [f"{where}: no expected text"]
        if code == 0:
            return [f"{where}: compiles, but must not"]
        return [f"{where}: the first lines lack \"{text}\":\n{head(output)}" for text in expected
                if plain(text) not in plain(head(output))]

    with ThreadPoolExecutor(2) as pool:
        problems = [problem for found in pool.map(one, jobs) for problem in found]
    for problem in problems:
        print(problem)
    print(f"{len(jobs)} compilations, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
