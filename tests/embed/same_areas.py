# SPDX-License-Identifier: Apache-2.0
"""A scanned slide without Python in the process gives the result of `her2fast score`.

Level-0 pixels of a shipped slide are pushed in strips and in tiles out of order into
libher2fast, models by libher2fast_torch; the record must be that of
``her2fast.score(reading="exact")``, which reads level 0 of this slide.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import her2fast
from her2fast.models.package import load_package

#: What names where pixels and models came from; all else must be equal.
SOURCE_KEYS = {"slide", "reading_mode", "measurement_key", "decision_key", "device"}
ORDERS = (["--strip", "2000x300"], ["--strip", "333x450", "--order", "random"])


def main(program: str, engine: str, slide: str) -> int:
    """Returns 1 and says what differs where anything does."""
    package = load_package(None)
    folder = Path(package.classify.folder).parent
    expected = her2fast.score(slide, reading="exact", workers=2).record
    if expected["status"] != "scored":
        print(f"need a slide that is scored, got {expected['status']}")
        return 1
    for order in ORDERS:
        with tempfile.TemporaryDirectory() as out:
            record = Path(out, "result.json")
            command = [
                program,
                str(folder),
                "--known",
                str(folder.parent / "known.json"),
            ]
            command += ["--slide", slide, "--engine", engine, "--threads", "2"]
            command += ["--json", str(record), *order]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            got = json.loads(record.read_text("utf-8"))
        if list(got) != list(expected):
            print(f"keys differ: {list(got)}")
            return 1
        differing = [
            key
            for key in expected
            if key not in SOURCE_KEYS and got[key] != expected[key]
        ]
        for key in differing:
            print(f"{order}: {key}: need {expected[key]}, got {got[key]}")
        if differing:
            return 1
    print(f"equal: {expected['score']}, {expected['class_px']} px")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
