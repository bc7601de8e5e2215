# SPDX-License-Identifier: Apache-2.0
"""What libher2fast shows and needs: her2_* alone, no torch, no Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def elf(library: str) -> tuple[set[str], list[str], list[str]]:
    """Symbols shown, libraries needed, names of its own."""
    table = output_of("nm", "-D", "--defined-only", library)
    shown = {line.split()[2].split("@")[0] for line in table.splitlines()}
    entries = output_of("readelf", "-d", library)
    needed = re.findall(r"NEEDED.*\[(.*)\]", entries)
    return shown, needed, re.findall(r"SONAME.*\[(.*)\]", entries)


def dll(library: str, objdump: str) -> tuple[set[str], list[str], list[str]]:
    """The same of a DLL."""
    headers = output_of(objdump, "-p", library)
    exports = headers.split("[Ordinal/Name Pointer] Table", 1)[1].split("\n\n", 1)[0]
    shown = set(
        re.findall(r"\[ *\d+\] (?:\+base\[ *\d+\] +[0-9a-f]+ )?(\w+)$", exports, re.M)
    )
    needed = re.findall(r"DLL Name: (\S+)", headers)
    return shown, needed, [Path(library).name]


def has_thread_destructors(library: str, objdump: str) -> bool:
    """Whether objects of a thread need a destructor: such threads hold the library on
    Linux, and can keep each other from ending where MinGW made it."""
    table = "-t" if library.endswith(".dll") else "-T"
    return "__cxa_thread_atexit" in output_of(objdump, table, library)


def main(library: str, header: str, objdump: str) -> int:
    """Returns 1 and says why where the library shows or needs anything else."""
    is_dll = library.endswith(".dll")
    shown, needed, names = dll(library, objdump) if is_dll else elf(library)
    text = re.sub(r"/\*.*?\*/", "", Path(header).read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"HER2_API[^;(]*?\b(her2_\w+)\(", text))
    wrong = sorted(shown ^ declared)
    if wrong or len(declared) < 30:
        print(f"shown and declared differ in {wrong} ({len(declared)} declared)")
        return 1
    unwelcome = [n for n in needed if re.search("torch|c10|python|openslide|cuda", n)]
    if is_dll:  # the compiler's libraries are inside
        unwelcome = [
            n for n in needed if n.lower() not in ("kernel32.dll", "msvcrt.dll")
        ]
    major = re.findall(r"#define HER2_ABI_MAJOR (\d+)", Path(header).read_text())[0]
    name = f"libher2fast-{major}.dll" if is_dll else f"libher2fast.so.{major}"
    if unwelcome or names != [name]:
        print(f"needs {unwelcome}, is called {names}, ABI major {major}")
        return 1
    if has_thread_destructors(library, objdump):
        print("a thread_local object has a destructor (docs/design/embedding.md)")
        return 1
    print(f"{len(shown)} symbols; needs {', '.join(needed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
