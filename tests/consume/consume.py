#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Use the library the ways a user would, each from a scratch folder.

consume.py MODE --source DIR --scratch DIR --cmake CMAKE --compiler CXX [--components a,b]
MODE  package       install, then find_package(fairlead COMPONENTS ...) from another project
      subdirectory  add_subdirectory from another project
      copy          copy include/, compile with nothing but -std=c++20 -I
      device        a .cu file that links fairlead::cuda, by find_package and by add_subdirectory
      missing       find_package with a component that does not exist says so
      readme        extract the C++ blocks of README.md and docs/getting_started.md, compile and run them
"""
import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(*command, must_fail=False):
    command = [str(part) for part in command]
    print("+", " ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if (done.returncode != 0) != must_fail:
        print(done.stdout)
        sys.exit(f"status {done.returncode}: {' '.join(command)}")
    return done.stdout


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def install(options):
    """A library without its own tests, installed to a prefix."""
    build, prefix = fresh(options.scratch / "library"), fresh(options.scratch / "prefix")
    run(options.cmake, "-G", "Ninja", "-S", options.source, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}",
        f"-DCMAKE_CXX_COMPILER={options.compiler}", "-DFAIRLEAD_BUILD_TESTS=OFF", "-DFAIRLEAD_BUILD_EXAMPLES=OFF",
        "-DFAIRLEAD_BUILD_BENCH=OFF", "-DFAIRLEAD_BUILD_DOCS=OFF")
    run(options.cmake, "--install", build)
    installed = {p.relative_to(prefix / "include").as_posix() for p in (prefix / "include").rglob("*") if p.is_file()}
    missing = {p.relative_to(options.source / "include").as_posix()
               for p in (options.source / "include" / "fairlead").rglob("*.hpp")
               if p.name not in ("threads.hpp", "gemm_blas.hpp") and not p.name.startswith("mpi")} - installed
    if missing:
        sys.exit(f"not installed: {sorted(missing)}")
    leaked = [line for p in prefix.rglob("*.cmake") for line in p.read_text().splitlines()
              if str(options.source) in line]
    if leaked:
        sys.exit(f"the package names the source folder: {leaked}")
    return prefix


def project(options, folder, *arguments):
    build = fresh(options.scratch / ("build_" + folder))
    run(options.cmake, "-G", "Ninja", "-S", HERE / folder, "-B", build, f"-DCMAKE_CXX_COMPILER={options.compiler}",
        f"-DCOMPONENTS={options.components.replace(',', ';')}", *arguments)
    run(options.cmake, "--build", build)
    return build


def package(options):
    print(run(project(options, "project", f"-DCMAKE_PREFIX_PATH={install(options)}") / "consumer"))


def subdirectory(options):
    build = project(options, "project", f"-DFAIRLEAD_SOURCE={options.source}")
    print(run(build / "consumer"))
    # Nothing of ours but the library may be built in a user's project.
    alien = [p.name for p in build.rglob("test_*") if "CMakeFiles" not in p.parts]
    if alien:
        sys.exit(f"a consumer builds our tests: {alien}")


def copy(options):
    here = fresh(options.scratch / "copy")
    shutil.copytree(options.source / "include" / "fairlead", here / "include" / "fairlead")
    run(options.compiler, "-std=c++20", "-I", here / "include", HERE / "project" / "main.cpp", "-o", here / "consumer",
        "-pthread")
    print(run(here / "consumer"))


def device(options):
    for arguments in ([f"-DCMAKE_PREFIX_PATH={install(options)}"], [f"-DFAIRLEAD_SOURCE={options.source}"]):
        print(run(project(options, "device", *arguments) / "device_consumer"))


def missing(options):
    prefix = install(options)
    build = fresh(options.scratch / "build_missing")
    out = run(options.cmake, "-G", "Ninja", "-S", HERE / "project", "-B", build, "-DCOMPONENTS=openmp;warp_drive",
              f"-DCMAKE_CXX_COMPILER={options.compiler}", f"-DCMAKE_PREFIX_PATH={prefix}", must_fail=True)
    if "fairlead component warp_drive: there is no component of this name" not in " ".join(out.split()):
        sys.exit(f"the message does not name the component:\n{out}")


def readme(options):
    here = fresh(options.scratch / "readme")
    blocks = 0
    for page in ("README.md", "docs/getting_started.md"):
        text = (options.source / page).read_text()
        for number, (info, body) in enumerate(re.findall(r"^```(cpp[^\n]*)\n(.*?)^```", text, re.S | re.M), 1):
            if "fairlead/" not in body:
                sys.exit(f"{page}: block {number} includes nothing of fairlead; a block must compile as it stands")
            stem = Path(page).stem.lower() + str(number)
            source = here / (stem + ".cpp")
            program = "int main() {" in body
            source.write_text(body + ("" if program else "\nint main() {}\n"))
            run(options.compiler, "-std=c++20", "-O1", "-I", options.source / "include", source, "-o", here / stem,
                "-pthread")
            print(run(here / stem))
            blocks += 1
    if blocks == 0:
        sys.exit("no C++ block was found")
    print(f"{blocks} blocks compiled and run")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["package", "subdirectory", "copy", "device", "missing", "readme"])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--cmake", required=True)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--components", default="")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    {"package": package, "subdirectory": subdirectory, "copy": copy, "device": device, "missing": missing,
     "readme": readme}[options.mode](options)


if __name__ == "__main__":
    main()
