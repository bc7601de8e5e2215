# SPDX-License-Identifier: Apache-2.0
"""Makes the slide that `her2fast demo` scores: one round phantom core, Aperio layout.

    python -m her2fast.phantom.demo_slide -o DIR

writes DIR/demo.svs and DIR/demo.json (the truth). Synthetic; shows nobody's tissue.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from her2fast import _core
from her2fast.phantom import Phantom, compose_scene, develop
from her2fast.phantom.fields import Floats, generator, smooth_noise
from her2fast.phantom.optics import profile_by_name
from her2fast.phantom.scene import Scene

SEED = 9_000_002
SIDE_PX = 3072
SPACING_UM = 0.5
#: A heterogeneous 3+: every class is well above or well below each cut.
MIXTURE = (0.15, 0.20, 0.25, 0.40)
PROFILE = "reference"
#: Keeps the file under 2 MB; the phantom itself is not compressed before.
JPEG_QUALITY = 80


def _round_core(seed: int, scene: Scene, spacing_um: float) -> Scene:
    """Leave glass round a disc with a frayed edge."""
    height, width = scene.class_map.shape
    rows, columns = np.ogrid[:height, :width]
    radius: Floats = np.hypot(rows - height / 2.0, columns - width / 2.0)
    rng = generator(seed, 3)
    fray = smooth_noise(rng, (height, width), 40.0 / spacing_um) * 8.0 / spacing_um
    inside = radius + fray < 0.46 * min(height, width)
    column = (scene.cells.x_um / spacing_um).astype(np.intp)
    row = (scene.cells.y_um / spacing_um).astype(np.intp)
    return replace(
        scene,
        amounts=np.where(inside, scene.amounts, np.float32(0.0)),
        class_map=np.where(inside, scene.class_map, np.int8(-1)),
        tissue=np.where(inside, scene.tissue, np.uint8(0)),
        membrane_mask=scene.membrane_mask & inside,
        cells=scene.cells.take(np.flatnonzero(inside[row, column])),
    )


def demo_phantom(seed: int = SEED, side_px: int = SIDE_PX) -> Phantom:
    """The picture of the demo slide and its truth."""
    scene = compose_scene(
        seed,
        (side_px, side_px),
        spacing_um=SPACING_UM,
        mixture=MIXTURE,
        oversampling=1,
    )
    scene = _round_core(seed, scene, SPACING_UM)
    look = replace(profile_by_name(PROFILE), jpeg_quality=0, noise=0.8)
    return develop(
        scene, look, seed, spacing_um=SPACING_UM, jitter=False, oversampling=1
    )


def truth(phantom: Phantom) -> dict[str, Any]:
    """What `demo.json` says."""
    kinds = phantom.class_map[phantom.class_map >= 0]
    counts = [int(count) for count in np.bincount(kinds, minlength=4)]
    pixel_mm2 = (phantom.spacing_um / 1000.0) ** 2
    return {
        "synthetic": True,
        "notice": "generated picture, research use only; shows nobody's tissue",
        "licence": "Apache-2.0",
        "command": "python -m her2fast.phantom.demo_slide",
        "seed": SEED,
        "profile": PROFILE,
        "size_px": [phantom.rgb.shape[1], phantom.rgb.shape[0]],
        "spacing_um": phantom.spacing_um,
        "class_names": ["0", "1+", "2+", "3+"],
        "tumor_px": counts,
        "tumor_mm2": round(sum(counts) * pixel_mm2, 4),
        "fractions": [round(share, 5) for share in phantom.fractions],
        "score": "3+",
    }


def main(arguments: list[str] | None = None) -> None:
    """Render and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder")
    chosen = parser.parse_args(arguments)
    phantom = demo_phantom()
    chosen.out.mkdir(parents=True, exist_ok=True)
    _core.write_pyramid(
        str(chosen.out / "demo.svs"),
        phantom.rgb,
        spacing_um=phantom.spacing_um,
        tile_px=256,
        jpeg_quality=JPEG_QUALITY,
        downsamples=[1, 4, 16],
        aperio=True,
    )
    text = json.dumps(truth(phantom), indent=2) + "\n"
    (chosen.out / "demo.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
