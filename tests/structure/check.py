#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Rules about the tree that no compiler checks.

check.py NAME    runs one rule on this tree, prints every violation, and fails if there is one
check.py --list  names the rules
check.py --self-test  plants a violation of each rule in a small tree and fails if it goes unnoticed
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Layer rule: a module may include itself, every module of a lower level, and nothing else.
# `cuda` (block-level pieces) needs core only; every .cuh may use it. `laws` is no base of the algorithms.
LEVEL = {"core": 0, "cuda": 1, "concepts": 2}
LEVEL.update({m: 3 for m in ("exec", "comm", "cluster", "workload", "metrics", "flow")})
LEVEL.update({m: 4 for m in ("route", "balance", "assign", "place", "schedule", "dispatch", "expert", "shard", "optim",
                             "merge", "edge")})
LEVEL.update({"laws": 4, "layer": 5, "root": 6})

TOP_LEVEL = {"CMakeLists.txt", "README.md", "include", "examples", "tests", "bench", "docs", "LICENSE",
             "CMakePresets.json"}
TEXT = {".hpp", ".cuh", ".cpp", ".cu", ".py", ".sh", ".md", ".txt", ".cmake", ".in", ".json", ""}
RULES = {}


def rule(function):
    RULES[function.__name__] = function
    return function


def files(root):
    """What git tracks or would track; all files where there is no git."""
    try:
        out = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"],
                             capture_output=True, check=True).stdout.decode()
        found = [root / name for name in out.split("\0") if name]
        if found:
            return sorted(p for p in set(found) if p.is_file())
    except (OSError, subprocess.CalledProcessError):
        pass
    return sorted(p for p in root.rglob("*")
                  if p.is_file() and not any(part.startswith("build") or part == ".git" or part == "__pycache__"
                                             for part in p.relative_to(root).parts))


def headers(root):
    return [p for p in files(root) if p.suffix in (".hpp", ".cuh") and p.is_relative_to(root / "include" / "fairlead")]


def name(root, path):
    return path.relative_to(root).as_posix()


def text_of(path):
    return path.read_text(errors="replace")


def code_of(path):
    """The text without comments and strings, line breaks kept."""
    def blank(match):
        return "\n" * match.group(0).count("\n") if match.group(0).startswith("/") else '""'
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', blank, text_of(path), flags=re.S)


def module_of(parts):
    return parts[1] if len(parts) > 2 else "root"


@rule
def layers(root):
    bad = []
    for path in headers(root):
        own = path.relative_to(root / "include").parts
        mine = module_of(own)
        if mine not in LEVEL:
            bad.append(f"{name(root, path)}: module {mine} has no level in tests/structure/check.py")
            continue
        for line in text_of(path).splitlines():
            match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
            if not match:
                continue
            included = match.group(1)
            if included.endswith(".cuh") and path.suffix != ".cuh":
                bad.append(f"{name(root, path)}: only .cuh includes .cuh: {included}")
            if '"' in line:
                bad.append(f'{name(root, path)}: write <fairlead/...>, not "{included}"')
            if not included.startswith("fairlead/"):
                continue
            theirs_parts = tuple(included.split("/"))
            theirs = module_of(theirs_parts)
            if included == "fairlead/version.hpp":
                continue
            if "detail" in theirs_parts and theirs != mine:
                bad.append(f"{name(root, path)}: includes a private header of module {theirs}: {included}")
            if theirs == mine and included != name(root, path)[len("include/"):]:
                continue
            if theirs == "laws" and mine not in ("root", "laws"):
                bad.append(f"{name(root, path)}: only tests and users include laws: {included}")
            elif theirs not in LEVEL or LEVEL[theirs] >= LEVEL[mine]:
                bad.append(f"{name(root, path)}: module {mine} must not include module {theirs}: {included}")
            elif mine == "concepts" and theirs == "cuda":
                bad.append(f"{name(root, path)}: concepts depend on core and nothing else: {included}")
    return bad


@rule
def no_indirection(root):
    bad = []
    for path in headers(root):
        for number, line in enumerate(code_of(path).splitlines(), 1):
            for word in (r"\bvirtual\b", r"\bstd\s*::\s*function\b", r"\btag_invoke\b", r"\btypeid\b"):
                if re.search(word, line):
                    bad.append(f"{name(root, path)}:{number}: {line.strip()}")
    return bad


@rule
def no_glob(root):
    bad = []
    for path in files(root):
        if path.name == "CMakeLists.txt" or path.suffix in (".cmake", ".in"):
            for number, line in enumerate(text_of(path).splitlines(), 1):
                if re.search(r"\bGLOB(_RECURSE)?\b", line.split("#")[0]):
                    bad.append(f"{name(root, path)}:{number}: list the files")
    return bad


@rule
def header_size(root):
    bad = []
    for path in headers(root):
        lines = len(text_of(path).splitlines())
        if lines > 300 and "detail" not in path.parts:
            bad.append(f"{name(root, path)}: {lines} lines, at most 300: split it or move bodies to detail/")
    return bad


@rule
def header_preamble(root):
    bad = []
    for path in headers(root):
        lines = text_of(path).splitlines() + [""] * 4
        head = "\n".join(lines[:12])
        if lines[0] != "// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception":
            bad.append(f"{name(root, path)}: the first line must be the SPDX line")
        if lines[1] != "#pragma once":
            bad.append(f"{name(root, path)}: the second line must be #pragma once")
        if "/// @file" not in head or "/// @brief " not in head:
            bad.append(f"{name(root, path)}: needs /// @file and /// @brief at the top")
        included = re.findall(r"^\s*#\s*include\s*<([^>]+)>", text_of(path), re.M)
        # Bodies in the module's own detail/ may follow at the end of the header.
        own = [i for i, header in enumerate(included) if header.startswith("fairlead/") and "/detail/" not in header]
        other = [i for i, header in enumerate(included) if not header.startswith("fairlead/")]
        if own and other and max(own) > min(other):
            bad.append(f"{name(root, path)}: own headers come first: {included[max(own)]}")
    return bad


@rule
def spdx(root):
    bad = []
    for path in files(root):
        if path.suffix in (".cpp", ".cu", ".py", ".sh", ".cmake") or path.name == "CMakeLists.txt":
            if "SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception" not in "\n".join(
                    text_of(path).splitlines()[:3]):
                bad.append(f"{name(root, path)}: no SPDX line at the top")
    return bad


@rule
def reserved_names(root):
    bad = []
    for path in headers(root):
        for number, line in enumerate(code_of(path).splitlines(), 1):
            for match in re.finditer(r"#\s*define\s+(\w+)", line):
                if not match.group(1).startswith(("FAIRLEAD_", "OMPI_SKIP_", "MPICH_SKIP_")):  # switches of mpi.h
                    bad.append(f"{name(root, path)}:{number}: macro {match.group(1)} needs the prefix FAIRLEAD_")
            for match in re.finditer(r"\b(?:struct|class|concept|using|namespace)\s+(_[A-Z_]\w*|\w*__\w+)", line):
                bad.append(f"{name(root, path)}:{number}: reserved identifier {match.group(1)}")
    return bad


@rule
def top_level(root):
    found = {path.relative_to(root).parts[0] for path in files(root)}
    bad = [f"{entry}: does not belong to the top level" for entry in sorted(found)
           if entry not in TOP_LEVEL and not entry.startswith(".")]
    return bad + [f"{entry}: missing" for entry in sorted(TOP_LEVEL - found)]


@rule
def unfinished_words(root):
    # Put together from parts, so that this file passes its own rule.
    words = "|".join(a + b for a, b in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("st", "ub"),
                                        ("place", "holder"), ("not ", "implemented"), ("unimple", "mented")))
    pattern = re.compile(rf"\b({words})\b", re.I)
    bad = []
    for path in files(root):
        if path.suffix in TEXT and path.name != "LICENSE":
            for number, line in enumerate(text_of(path).splitlines(), 1):
                if pattern.search(line):
                    bad.append(f"{name(root, path)}:{number}: {line.strip()[:100]}")
    return bad


@rule
def machine_paths(root):
    pattern = re.compile(r"(^|[^\w.])/(work|tmp|root|home)" + r"/[A-Za-z]")
    bad = []
    for path in files(root):
        if path.suffix in TEXT:
            for number, line in enumerate(text_of(path).splitlines(), 1):
                if pattern.search(line):
                    bad.append(f"{name(root, path)}:{number}: path of a machine: {line.strip()[:100]}")
    return bad


def anchors(path):
    found = set()
    for line in text_of(path).splitlines():
        match = re.match(r"#+\s+(.*)", line)
        if match:
            words = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", match.group(1)).strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


@rule
def doc_links(root):
    bad = []
    for path in files(root):
        if path.suffix != ".md":
            continue
        text = re.sub(r"```.*?```", "", text_of(path), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            file_part, _, anchor = target.partition("#")
            other = (path.parent / file_part).resolve() if file_part else path
            if not other.exists():
                bad.append(f"{name(root, path)}: no such file: {target}")
            elif anchor and other.suffix == ".md" and anchor not in anchors(other):
                bad.append(f"{name(root, path)}: no such heading: {target}")
    return bad


@rule
def doc_pages(root):
    """Every page is reachable from docs/index.md, and every concept and algorithm module has its page."""
    docs = root / "docs"
    pages = {p for p in files(root) if p.suffix == ".md" and p.is_relative_to(docs)}
    reached, waiting = set(), [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in pages:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", text_of(page)):
            waiting.append(Path(os.path.normpath(page.parent / target)))
    bad = [f"{name(root, page)}: no page links to it, starting from docs/index.md" for page in sorted(pages - reached)]
    for path in headers(root):
        parts = path.relative_to(root / "include" / "fairlead").parts
        if parts[0] == "concepts" and len(parts) == 2 and docs / "concepts" / (path.stem + ".md") not in pages:
            bad.append(f"{name(root, path)}: needs docs/concepts/{path.stem}.md")
    for module in sorted({p.relative_to(root / "include" / "fairlead").parts[0] for p in headers(root)
                          if len(p.relative_to(root / "include" / "fairlead").parts) > 1}):
        if LEVEL.get(module, 0) in (4, 5) and module != "laws" and docs / "algorithms" / f"{module}.md" not in pages:
            bad.append(f"module {module}: needs docs/algorithms/{module}.md")
    return bad


@rule
def tests_listed(root):
    """Every test source is named by the CMakeLists.txt of its folder, every folder by tests/CMakeLists.txt."""
    bad = []
    tests = root / "tests"
    whole = text_of(tests / "CMakeLists.txt")
    modules = re.search(r"set\(modules\s([^$]*?)\)", whole)
    modules = set(modules.group(1).split()) if modules else set()
    for path in files(root):
        if not path.is_relative_to(tests) or not re.search(r"\.test\.(cpp|cu)$", path.name):
            continue
        listing = path.parent / "CMakeLists.txt"
        if not listing.exists() or not re.search(r"(?<![\w./-])" + re.escape(path.name), text_of(listing)):
            bad.append(f"{name(root, path)}: not named in {name(root, listing)}")
        if not re.search(r"\b(REQUIRE|CHECK|REQUIRE_\w+|CHECK_\w+|STATIC_REQUIRE\w*|static_assert|check)\b", code_of(path)):
            bad.append(f"{name(root, path)}: no assertion")
        if re.search(r"\bsleep(_for|_until)?\s*\(", code_of(path)):
            bad.append(f"{name(root, path)}: a test must not sleep")
    for folder in sorted(p for p in tests.iterdir() if p.is_dir()):
        if folder.name not in modules | {"support", "__pycache__"} and any(folder.is_relative_to(tests) and
                p.is_relative_to(folder) for p in files(root)):
            bad.append(f"tests/{folder.name}: not in the list of modules of tests/CMakeLists.txt")
    for module in sorted(modules):
        if not (tests / module / "CMakeLists.txt").exists():
            bad.append(f"tests/{module}: no CMakeLists.txt")
    return bad


def plant(root, files_of):
    for relative, text in files_of.items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


GOOD = {
    "CMakeLists.txt": "# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n", "README.md": "[d](docs/index.md)\n",
    "LICENSE": "", "CMakePresets.json": "{}", "examples/a.md": "", "bench/a.md": "",
    "docs/index.md": "# Index\n[c](concepts/thing.md) [r](algorithms/route.md#some-title)\n",
    "docs/concepts/thing.md": "", "docs/algorithms/route.md": "## Some `title`\n",
    "tests/CMakeLists.txt": "# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n"
                            "set(modules route)\n",
    "tests/route/CMakeLists.txt": "# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\nf(a.test.cpp)\n",
    "tests/route/a.test.cpp": "// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\nREQUIRE(true);\n",
}
HEAD = ("// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n#pragma once\n/// @file\n/// @brief B.\n")
GOOD["include/fairlead/core/a.hpp"] = HEAD + "#include <vector>\n// virtual in a comment\n"
GOOD["include/fairlead/concepts/thing.hpp"] = HEAD + "#include <fairlead/core/a.hpp>\n#include <span>\n"
GOOD["include/fairlead/route/a.hpp"] = HEAD + "#include <fairlead/concepts/thing.hpp>\n"
GOOD["include/fairlead/route/a.cuh"] = HEAD + "#include <fairlead/route/a.hpp>\n#include <fairlead/cuda/p.cuh>\n"
GOOD["include/fairlead/cuda/p.cuh"] = HEAD + "#include <fairlead/core/a.hpp>\n"

BAD = [
    ("layers", {"include/fairlead/core/b.hpp": HEAD + "#include <fairlead/concepts/thing.hpp>\n"}),
    ("layers", {"include/fairlead/route/b.hpp": HEAD + "#include <fairlead/dispatch/a.hpp>\n"}),
    ("layers", {"include/fairlead/route/b.hpp": HEAD + "#include <fairlead/laws/a.hpp>\n"}),
    ("layers", {"include/fairlead/route/b.hpp": HEAD + "#include <fairlead/cuda/p.cuh>\n"}),
    ("layers", {"include/fairlead/route/b.hpp": HEAD + "#include <fairlead/exec/detail/x.hpp>\n"}),
    ("layers", {"include/fairlead/concepts/thing.hpp": HEAD + "#include <fairlead/exec/a.hpp>\n"}),
    ("layers", {"include/fairlead/cuda/p.cuh": HEAD + "#include <fairlead/concepts/thing.hpp>\n"}),
    ("layers", {"include/fairlead/strange/p.hpp": HEAD}),
    ("no_indirection", {"include/fairlead/core/b.hpp": HEAD + "struct s { virtual void f(); };\n"}),
    ("no_indirection", {"include/fairlead/core/b.hpp": HEAD + "std::function<void()> f;\n"}),
    ("no_glob", {"tests/CMakeLists.txt": "file(GL" + "OB x *.cpp)\n"}),
    ("header_size", {"include/fairlead/core/b.hpp": HEAD + "\n" * 300}),
    ("header_preamble", {"include/fairlead/core/b.hpp": "#pragma once\n"}),
    ("header_preamble", {"include/fairlead/core/b.hpp": HEAD + "#include <span>\n#include <fairlead/core/a.hpp>\n"}),
    ("spdx", {"tests/route/a.test.cpp": "REQUIRE(true);\n"}),
    ("reserved_names", {"include/fairlead/core/b.hpp": HEAD + "#define MAX_THINGS 3\n"}),
    ("reserved_names", {"include/fairlead/core/b.hpp": HEAD + "struct _Thing {};\n"}),
    ("top_level", {"notes.md": ""}),
    ("unfinished_words", {"docs/index.md": "to" + "do: more\n"}),
    ("machine_paths", {"docs/index.md": "see /ho" + "me/me/x\n"}),
    ("doc_links", {"docs/index.md": "[x](nowhere.md)\n"}),
    ("doc_links", {"docs/index.md": "[x](algorithms/route.md#other)\n"}),
    ("doc_pages", {"docs/design/lost.md": ""}),
    ("doc_pages", {"include/fairlead/concepts/b.hpp": HEAD}),
    ("tests_listed", {"tests/route/b.test.cpp": "REQUIRE(true);\n"}),
    ("tests_listed", {"tests/route/a.test.cpp": "int main() {}\n"}),
    ("tests_listed", {"tests/dispatch/CMakeLists.txt": ""}),
]


def self_test():
    failed = 0
    for planted in [None] + BAD:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            plant(root, GOOD)
            if planted is None:
                for rule_name, function in RULES.items():
                    found = function(root)
                    if found:
                        failed += 1
                        print(f"{rule_name} complains about a good tree: {found}")
                continue
            plant(root, planted[1])
            if not RULES[planted[0]](root):
                failed += 1
                print(f"{planted[0]} did not notice {planted[1]}")
    untested = set(RULES) - {rule_name for rule_name, _ in BAD}
    for rule_name in sorted(untested):
        failed += 1
        print(f"{rule_name} has no planted violation")
    print(f"{len(BAD)} planted violations, {failed} problems")
    return 1 if failed else 0


def main():
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    if sys.argv[1] == "--list":
        print("\n".join(RULES))
        return 0
    if sys.argv[1] == "--self-test":
        return self_test()
    problems = RULES[sys.argv[1]](Path(__file__).resolve().parents[2])
    for problem in problems:
        print(problem)
    print(f"{sys.argv[1]}: {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
