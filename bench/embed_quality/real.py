# SPDX-License-Identifier: Apache-2.0
"""Real cores, stored anew: do the shares move there as on phantoms?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from coding import store
from moved import Row, compare
from PIL import Image
from pushing import as_stored

import her2fast

SPACING_UM = 0.24  # an estimate, as in bench/real_cores
#: The cores are JPEG files: cut off, so that new blocks do not lie on theirs.
CUT_PX = (5, 3)
READINGS = ("level0", "scaled")


def real_cores(folder: Path, qualities: tuple[int, ...]) -> Row:
    """Per core and quality: level 0 and the default against the core's own pixels."""
    return {path.stem: core(path, qualities) for path in sorted(folder.glob("*.jpg"))}


def core(path: Path, qualities: tuple[int, ...]) -> Row:
    with Image.open(path) as picture:
        whole = np.asarray(picture.convert("RGB"))[CUT_PX[0] :, CUT_PX[1] :]
    height, width = (side // 4 * 4 for side in whole.shape[:2])
    rgb = np.ascontiguousarray(whole[:height, :width])
    row: Row = {}
    with tempfile.TemporaryDirectory() as work:
        raw = Path(work, "raw.svs")
        store(raw, rgb, 0, [1], SPACING_UM)
        reference = her2fast.score(raw, reading="exact", workers=1)
        row["status"], row["score"] = reference.status, reference.score
        row["class_px"] = reference.record["class_px"]
        for quality in qualities:
            stored = Path(work, f"{quality}.svs")
            store(stored, rgb, quality, [1, 4, 16], SPACING_UM)
            results = {
                reading: her2fast.score(stored, reading=reading, workers=1)
                for reading in READINGS
            }
            row[str(quality)] = {
                reading: compare(reference, result)
                for reading, result in results.items()
            }
            files = {
                reading: (stored, reading, result)
                for reading, result in results.items()
            }
            row[str(quality)]["as_stored"] = as_stored(raw, quality, files)
    return row
