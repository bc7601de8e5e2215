# SPDX-License-Identifier: Apache-2.0
"""Contact sheets for the eye: phantoms alone, or real cores beside them.

    python bench/realism/sheet.py OUT.jpg                 # phantoms, 1 um/px
    python bench/realism/sheet.py OUT.jpg --spacing 0.25
    python bench/realism/sheet.py /tmp/beside.png --cores FOLDER   # real left

A sheet with real tissue is refused inside the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from her2fast import phantom

ROOT = Path(__file__).resolve().parents[2]
#: Spacing of the cores as they come; estimated by their publisher.
CORE_SPACING_UM = 0.24
FIRST_SEED = 8_000_000
#: A row each, from above: two of unstained tumor, then up to 3+.
ROWS = (
    (1.0, 0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, 0.0),
    (0.3, 0.7, 0.0, 0.0),
    (0.1, 0.3, 0.6, 0.0),
    (0.0, 0.05, 0.15, 0.8),
)
#: The core shown beside each row, by its file name.
CORES = ("core_0_a", "core_0_b", "core_1_a", "core_2_ishpos_a", "core_3_left_half")
Bytes = npt.NDArray[np.uint8]


def read_core(path: Path, spacing_um: float = 1.0) -> Bytes:
    """A core at `spacing_um`, by area averaging."""
    with Image.open(path) as image:
        side = [round(length * CORE_SPACING_UM / spacing_um) for length in image.size]
        small = image.convert("RGB").resize((side[0], side[1]), Image.Resampling.BOX)
    return np.asarray(small)


def phantoms(
    row: int, count: int, tile_px: int, spacing_um: float, look: str | None
) -> list[Bytes]:
    """Some phantoms of a row, in all looks in turn or in one."""
    out = []
    for column in range(count):
        index = row * count + column
        profile = phantom.PROFILES[(column + 3 * row) % len(phantom.PROFILES)]
        out.append(
            phantom.render(
                FIRST_SEED + index,
                (tile_px, tile_px),
                spacing_um=spacing_um,
                mixture=ROWS[row],
                profile=look or profile,
            ).rgb
        )
    return out


def crops(core: Bytes, count: int, tile_px: int) -> list[Bytes]:
    """Crops of a core that are mostly tissue, drawn by a fixed seed."""
    rng = np.random.default_rng(FIRST_SEED)
    out: list[Bytes] = []
    for attempt in range(400):
        y = int(rng.integers(0, core.shape[0] - tile_px + 1))
        x = int(rng.integers(0, core.shape[1] - tile_px + 1))
        crop = core[y : y + tile_px, x : x + tile_px]
        if (crop.min(-1) < 215).mean() > 0.6 or attempt > 390:
            out.append(crop)
        if len(out) == count:
            break
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cores", type=Path, help="folder of core_*.jpg, shown left")
    parser.add_argument("--spacing", type=float, default=1.0, help="um per px")
    parser.add_argument("--tile-px", type=int, default=192)
    parser.add_argument("--look", help="one profile instead of all")
    options = parser.parse_args()
    if options.cores and options.out.resolve().is_relative_to(ROOT):
        raise SystemExit(
            f"{options.out}: holds real tissue, choose a place outside {ROOT}"
        )
    rows = []
    for row in range(len(ROWS)):
        tiles: list[Bytes] = []
        count = 6
        if options.cores:
            count = 3
            core = read_core(options.cores / f"{CORES[row]}.jpg", options.spacing)
            tiles += crops(core, 3, options.tile_px)
        tiles += phantoms(row, count, options.tile_px, options.spacing, options.look)
        rows.append(np.hstack(tiles))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(options.out, quality=82)


if __name__ == "__main__":
    main()
