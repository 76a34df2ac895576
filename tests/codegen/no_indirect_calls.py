#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Disassemble functions of a binary and fail on a call or tail jump through a pointer.

no_indirect_calls.py [--expect-found] [--allow REGEX] BINARY SYMBOL_REGEX...

Every SYMBOL_REGEX must match a function, by its demangled name. The hot function's out-of-line callees inside the
binary are followed too (direct calls), except cold ones: contract violations and exceptions.
What counts as indirect: `call *...` and `jmp *...` (also with a notrack prefix).
What is allowed:
- jump tables of `switch`: g++ and clang load the target from a table in .rodata, so that the jump is preceded, within
  the last 12 instructions of its function, by `lea table(%rip)` with a `movslq (base,index,4)` or by an indexed
  memory operand `jmp *table(,%reg,8)`, and by the `cmp` that guards the range. A call is never a jump table.
- calls of named library functions: `call name@plt`, and `call *name@GOTPCREL(%rip)` as -fno-plt makes it, when
  objdump resolves the slot to a symbol (`# ... <memcpy@...>`): the linker binds it, no object holds it.
"""
import argparse
import re
import subprocess
import sys

COLD = re.compile(r"violate|__cxa_|_Unwind|__throw|terminate|__stack_chk|contract_violation|\[clone \.cold\]|::~")


def functions(binary):
    """name -> list of (address, instruction text), from objdump."""
    out = subprocess.run(["objdump", "-d", "-C", "--no-show-raw-insn", binary], capture_output=True, text=True,
                         errors="replace", check=True).stdout
    found, body = {}, None
    for line in out.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.*)>:$", line)
        if head:
            body = found.setdefault(head.group(1), [])
        elif body is not None and ":\t" in line:
            address, text = line.split(":\t", 1)
            body.append((address.strip(), text.strip()))
    return found


def is_jump_table(body, at):
    text = body[at][1]
    before = [t for _, t in body[max(0, at - 12):at]]
    guarded = any(re.match(r"cmp", t) for t in before)
    if re.search(r"\*(-?0x[0-9a-f]+)?\(,%r\w+,8\)", text):
        return guarded
    return (guarded and re.search(r"jmp\s+\*%r\w+", text) is not None and
            any(re.match(r"lea\s+-?0x[0-9a-f]+\(%rip\)", t) for t in before) and
            any(re.match(r"movslq\s+\(%r\w+,%r\w+,4\)", t) for t in before))


def indirect(body):
    bad = []
    for at, (address, text) in enumerate(body):
        match = re.match(r"(?:notrack\s+)?(?:bnd\s+)?(call|jmp)q?\s+\*(.*)", text)
        if not match:
            continue
        if match.group(1) == "jmp" and is_jump_table(body, at):
            continue
        if re.search(r"\(%rip\)\s+#\s+[0-9a-f]+\s+<[^>]*@", text):
            continue
        bad.append(f"{address}: {text}")
    return bad


def callees(body):
    for _, text in body:
        match = re.match(r"(?:call|jmp)q?\s+[0-9a-f]+\s+<(.*)>$", text)
        if match and not match.group(1).endswith("@plt") and not re.search(r"\+0x[0-9a-f]+$", match.group(1)):
            yield match.group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect-found", action="store_true", help="succeed only if every symbol has an indirect call")
    parser.add_argument("--allow", default="(?!)", help="functions that are not followed, a regular expression")
    parser.add_argument("binary")
    parser.add_argument("symbols", nargs="+")
    options = parser.parse_args()
    everything = functions(options.binary)
    allow = re.compile(options.allow)
    status = 0
    for symbol in options.symbols:
        roots = [name for name in everything if re.search(symbol, name) and "[clone .cold]" not in name]
        if not roots:
            print(f"no function matches {symbol}: it was inlined or renamed; nothing is proved")
            status = 1
            continue
        seen, waiting, found = set(), list(roots), []
        while waiting:
            name = waiting.pop()
            if name in seen or name not in everything or COLD.search(name) or allow.search(name):
                continue
            seen.add(name)
            found += [f"{name}: {bad}" for bad in indirect(everything[name])]
            waiting += callees(everything[name])
        print(f"{symbol}: {len(roots)} functions, {len(seen)} with their callees, {len(found)} indirect calls")
        if bool(found) != options.expect_found:
            status = 1
            print("\n".join("  " + line[:300] for line in found))
    return status


if __name__ == "__main__":
    sys.exit(main())
