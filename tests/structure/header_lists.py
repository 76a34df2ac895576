#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compare the header lists and the umbrella headers with the folders; --fix rewrites them."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "include" / "headers.cmake"


def on_disk():
    base = ROOT / "include"
    files = (p for p in (base / "fairlead").rglob("*") if p.suffix in (".hpp", ".cuh"))
    return sorted(p.relative_to(base).as_posix() for p in files)


def module_of(header):
    parts = header.split("/")
    return parts[1] if len(parts) > 2 else "root"


def listed():
    text = LIST.read_text() if LIST.exists() else ""
    found = {}
    for name, body in re.findall(r"set\(FAIRLEAD_HEADERS_(\w+)\n(.*?)\)", text, re.S):
        found[name] = body.split()
    return found


NAMED_AFTER_A_DEPENDENCY = {"fairlead/exec/threads.hpp", "fairlead/exec/gemm_blas.hpp", "fairlead/comm/mpi.hpp",
                            "fairlead/comm/nccl.cuh", "fairlead/exec/gemm_cublas.cuh"}

HOST_TOP = """// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Everything that needs the standard library only. Conformance kits (laws/) and headers that are named after
/// a dependency (OpenMP, BLAS, MPI) are included by name.
"""
DEVICE_TOP = """// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Everything for CUDA devices; NCCL and cuBLAS headers are included by name.
#ifndef __CUDACC__
#  error "fairlead/cuda.cuh needs nvcc: compile this file as CUDA, or include <fairlead/fairlead.hpp>"
#endif
#include <fairlead/fairlead.hpp>
"""


def umbrellas():
    """What the two umbrella headers must hold, by path."""
    public = [h for h in on_disk() if "/detail/" not in h and h not in NAMED_AFTER_A_DEPENDENCY and
              module_of(h) not in ("root", "laws")]
    lines = {suffix: "".join(f"#include <{h}>\n" for h in public if h.endswith(suffix)) for suffix in (".hpp", ".cuh")}
    base = ROOT / "include" / "fairlead"
    found = {base / "fairlead.hpp": HOST_TOP + lines[".hpp"] + "#include <fairlead/version.hpp>\n"}
    if lines[".cuh"]:
        found[base / "cuda.cuh"] = DEVICE_TOP + lines[".cuh"]
    return found


def fix():
    for path, text in umbrellas().items():
        path.write_text(text)
    modules = {}
    for header in on_disk():
        modules.setdefault(module_of(header), []).append(header)
    out = ["# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception",
           "# One list of headers per module. tests/structure/header_lists.py compares them, and the umbrella headers,",
           "# with the folders and, called with --fix, writes all three files."]
    for name in sorted(modules):
        out.append(f"set(FAIRLEAD_HEADERS_{name}")
        out += ["    " + header for header in modules[name]]
        out[-1] += ")"
    out.append("set(FAIRLEAD_HEADERS")
    out += [f"    ${{FAIRLEAD_HEADERS_{name}}}" for name in sorted(modules)]
    out[-1] += ")"
    LIST.write_text("\n".join(out) + "\n")


def main():
    if "--fix" in sys.argv:
        fix()
        return 0
    problems = []
    lists = listed()
    flat = [h for headers in lists.values() for h in headers]
    for name, headers in lists.items():
        problems += [f"{h} stands in the list of {name}" for h in headers
                     if not h.startswith("$") and module_of(h) != name]
    disk = set(on_disk())
    problems += [f"{h} is in no list" for h in sorted(disk - set(flat))]
    problems += [f"{h} is listed but not there" for h in sorted(set(flat) - disk)]
    problems += [f"{h} is listed twice" for h in sorted({h for h in flat if flat.count(h) > 1})]
    whole = re.search(r"set\(FAIRLEAD_HEADERS\n(.*?)\)", LIST.read_text(), re.S)
    named = set(re.findall(r"FAIRLEAD_HEADERS_(\w+)", whole.group(1))) if whole else set()
    problems += [f"list of {name} is not part of FAIRLEAD_HEADERS" for name in sorted(set(lists) - named)]
    problems += [f"{path.name} does not hold what the folders hold" for path, text in umbrellas().items()
                 if not path.exists() or path.read_text() != text]
    for problem in problems:
        print(problem)
    if problems:
        print("run: python3 tests/structure/header_lists.py --fix")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
