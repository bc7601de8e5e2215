# SPDX-License-Identifier: Apache-2.0
"""What libher2fast shows and needs: her2_* alone, no torch, no Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def main(library: str, header: str) -> int:
    """Returns 1 and says why where the library shows or needs anything else."""
    nm = ["nm", "-D", "--defined-only", library]
    table = subprocess.run(nm, check=True, capture_output=True, text=True).stdout
    shown = {line.split()[2].split("@")[0] for line in table.splitlines()}
    text = re.sub(r"/\*.*?\*/", "", Path(header).read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"HER2_API[^;(]*?\b(her2_\w+)\(", text))
    wrong = sorted(shown ^ declared)
    if wrong or len(declared) < 30:
        print(f"shown and declared differ in {wrong} ({len(declared)} declared)")
        return 1
    dynamic = ["readelf", "-d", library]
    entries = subprocess.run(dynamic, check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", entries)
    unwelcome = [n for n in needed if re.search("torch|c10|python|openslide|cuda", n)]
    soname = re.findall(r"SONAME.*\[(.*)\]", entries)
    major = re.findall(r"#define HER2_ABI_MAJOR (\d+)", Path(header).read_text())[0]
    if unwelcome or soname != [f"libher2fast.so.{major}"]:
        print(f"needs {unwelcome}, is called {soname}, ABI major {major}")
        return 1
    print(f"{len(shown)} symbols; needs {', '.join(needed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
