# SPDX-License-Identifier: Apache-2.0
"""Makes the slides that `her2fast demo` scores: six small cores, Aperio layout.

    python -m her2fast.phantom.demo_slides -o DIR

writes DIR/phantom-a.svs to phantom-f.svs and DIR/truth.json. Synthetic; shows nobody's
tissue. The mixtures lie well inside their class, so that a score is no matter of luck.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from her2fast import guidelines
from her2fast.phantom import truth
from her2fast.phantom.cohort import write_svs
from her2fast.phantom.ground import Tissue
from her2fast.phantom.slide import Slide, draw_slide
from her2fast.phantom.spec import SlideSpec, check_spec

SPACING_UM = 0.5
#: Keeps a file under `MAX_BYTES`: six of them travel in the wheel.
JPEG_QUALITY = 60
MAX_BYTES = 350_000
#: Optical density of R, G, B for one unit of eosin (after Ruifrok and Johnston).
EOSIN = (0.09, 0.95, 0.28)


#: What a demo need not show: brown that is no tumor, and little but fat.
QUIET = (
    "fat",
    "benign_stained",
    "brown_macrophages",
    "brown_stroma",
    "dab_dots",
    "edge_artifact",
    "follicles",
    "formalin_pigment",
    "hemosiderin",
    "muscle",
    "nuclear_dab",
    "necrosis",
    "tumor_necrosis",
    "veil",
)


@dataclass(frozen=True)
class DemoSlide:
    """One of the six: what is drawn, and how scoring it must end."""

    name: str
    about: str
    mixture: tuple[float, float, float, float]
    status: str
    outcome: str  # the score, or the code where there is none
    seed: int
    core_um: float = 700.0
    side_um: float = 1000.0
    eosin: bool = False


#: Seeds are of layouts that hold much tumor, and that the shipped package reads as
#: drawn: a demo shows the path; bench/phantom_truth measures how often that is so.
DEMO_SLIDES: tuple[DemoSlide, ...] = (
    DemoSlide(
        "phantom-a", "no staining", (1.0, 0.0, 0.0, 0.0), "scored", "0", 9_000_019
    ),
    DemoSlide(
        "phantom-b", "mostly faint", (0.3, 0.7, 0.0, 0.0), "scored", "1+", 9_000_011
    ),
    DemoSlide(
        "phantom-c", "mostly moderate", (0.1, 0.3, 0.6, 0.0), "scored", "2+", 9_000_005
    ),
    DemoSlide(
        "phantom-d",
        "mostly intense",
        (0.05, 0.1, 0.2, 0.65),
        "scored",
        "3+",
        9_000_010,
        core_um=650.0,
    ),
    DemoSlide(
        "phantom-e",
        "a fragment with less than 0.1 mm2 of tissue",
        (0.1, 0.2, 0.3, 0.4),
        "indeterminate",
        "TOO_LITTLE_TUMOR",
        9_000_012,
        core_um=320.0,
        side_um=600.0,
    ),
    DemoSlide(
        "phantom-f",
        "hematoxylin and eosin instead of DAB",
        (1.0, 0.0, 0.0, 0.0),
        "refused",
        "WRONG_STAIN",
        9_000_014,
        eosin=True,
    ),
)


def demo_spec(demo: DemoSlide) -> SlideSpec:
    """One round core on glass, with little beside tumor and stroma."""
    return check_spec(
        {
            "slide": {
                "width_um": demo.side_um,
                "height_um": demo.side_um,
                "spacing_um": SPACING_UM,
                "jpeg_quality": JPEG_QUALITY,
            },
            "tumor": {"mixture": list(demo.mixture), "free_share": 0.0},
            "tissue": {"outline": "cores", "pieces": 1, "core_um": demo.core_um},
            "background": dict.fromkeys(QUIET, 0.0),
            "scanner": {"profile": "reference", "jitter": False},
        },
        demo.name,
    )


def draw_demo(demo: DemoSlide) -> Slide:
    """The slide, ready to be photographed: a pure function of `demo`."""
    slide = draw_slide(demo_spec(demo), demo.seed)
    return _counterstained(slide) if demo.eosin else slide


def _counterstained(slide: Slide) -> Slide:
    """The same tissue in hematoxylin and eosin: whatever is solid is pink."""
    patches = []
    for patch in slide.patches:
        amounts = patch.amounts.copy()
        pale = np.isin(patch.tissue, (Tissue.GLASS, Tissue.FAT, Tissue.LUMEN))
        solid = np.where(pale, np.float16(0.0), np.float16(0.1))
        amounts[1] = np.where(patch.own, solid + np.float16(0.7) * amounts[0], 0)
        patches.append(replace(patch, amounts=amounts))
    look = replace(slide.look, dab=EOSIN, dab_gain=1.0)
    return replace(slide, patches=tuple(patches), look=look)


def truth_of(demo: DemoSlide, slide: Slide, path: Path) -> dict[str, Any]:
    """What `truth.json` says of one slide."""
    counts = slide.class_px()
    pixel_mm2 = (SPACING_UM / 1000.0) ** 2
    data = path.read_bytes()
    return {
        "about": demo.about,
        "status": demo.status,
        "outcome": demo.outcome,
        "seed": demo.seed,
        "size_px": list(slide.spec.size_px),
        "spacing_um": SPACING_UM,
        "tumor_px": counts,
        "tumor_mm2": round(sum(counts) * pixel_mm2, 4),
        "fractions": [round(count / max(1, sum(counts)), 5) for count in counts],
        "score_of_truth": guidelines.decide(counts).score,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def make_demo(out: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the slides (those of `names`, or all) and `truth.json`."""
    out.mkdir(parents=True, exist_ok=True)
    value: dict[str, Any] = {
        "synthetic": True,
        "notice": truth.NOTICE,
        "licence": "Apache-2.0",
        "command": "make demo-slides",
        "class_names": ["0", "1+", "2+", "3+"],
        "slides": {},
    }
    for demo in DEMO_SLIDES:
        if names and demo.name not in names:
            continue
        slide = draw_demo(demo)
        path = out / f"{demo.name}.svs"
        write_svs(slide, path)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(
                f"{path}: need at most {MAX_BYTES} bytes, got {path.stat().st_size}; "
                "lower JPEG_QUALITY or side_um"
            )
        value["slides"][demo.name] = truth_of(demo, slide, path)
    text = json.dumps(value, indent=1) + "\n"
    (out / "truth.json").write_text(text, encoding="utf-8")
    return value


def main(arguments: list[str] | None = None) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder")
    parser.add_argument("names", nargs="*", help="only these")
    chosen = parser.parse_args(arguments)
    make_demo(chosen.out, chosen.names)


if __name__ == "__main__":
    main()
