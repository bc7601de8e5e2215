# SPDX-License-Identifier: Apache-2.0
"""Do pushed pixels score as the same pixels stored as JPEG? See README.md."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import her2fast
from her2fast import _core
from her2fast.golden import demo_paths
from her2fast.phantom.demo_slides import DEMO_SLIDES, demo_spec
from her2fast.phantom.slide import Camera, draw_slide
from her2fast.phantom.spec import SlideSpec, check_spec

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from embed_scan.run import ENGINE, build, scan  # noqa: E402

Rgb = npt.NDArray[np.uint8]
Row = dict[str, Any]

QUALITIES = (70, 80, 90)
SEED = 9_400_000  # of no training, study or demo slide
#: One scanner profile for each drawn slide.
PROFILES = ("reference", "pale-blue", "dark-nuclei", "unseen")
READINGS = {
    # name: (downsamples, reading)
    "level0_exact": ([1], "exact"),
    "level0_scaled": ([1], "scaled"),
    "default": ([1, 4, 16], "scaled"),
}


#: Y, and Cb and Cr without their offset, of R, G, B (JFIF).
LUMA = (0.299, 0.587, 0.114)
CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class Case:
    """A slide to draw."""

    name: str
    kind: str
    spec: SlideSpec
    seed: int


def cases(side_um: float) -> list[Case]:
    out = [
        Case(demo.name, "demo", demo_spec(demo), demo.seed)
        for demo in DEMO_SLIDES
        if demo.status == "scored"
    ]
    for index, score in enumerate(("0", "1+", "2+", "3+")):
        values = {
            "slide": {"width_um": side_um, "height_um": side_um, "spacing_um": 0.25},
            "tumor": {"score": score},
            "scanner": {"profile": PROFILES[index]},
        }
        name = f"drawn-{score}"
        out.append(Case(name, "drawn", check_spec(values, name), SEED + index))
    return out


def pixels(case: Case, work: Path) -> Rgb:
    """(H, W, 3) of level 0; drawn once."""
    width, height = case.spec.size_px
    path = work / f"{case.name}-{width}x{height}.npy"
    if not path.exists():
        camera = Camera(draw_slide(case.spec, case.seed))
        rows = [camera.rows(y, min(1024, height - y)) for y in range(0, height, 1024)]
        np.save(path, np.concatenate(rows))
    rgb: Rgb = np.load(path)
    return rgb


def store(
    path: Path, rgb: Rgb, quality: int, downsamples: list[int], spacing_um: float
) -> None:
    """An SVS; quality 0 is lossless."""
    _core.write_pyramid(
        str(path),
        rgb,
        spacing_um=spacing_um,
        jpeg_quality=quality,
        downsamples=downsamples,
        aperio=True,
        workers=1,
    )


def chroma_420(rgb: Rgb, *, triangle: bool) -> Rgb:
    """The pixels with colors as 4:2:0 holds them, and nothing else of JPEG.

    Means of 2 x 2 px, spread again by a triangle (3/4 of the nearest, 1/4 of the next
    one, per axis) as libjpeg does, or repeated.
    """
    height, width = (side // 2 * 2 for side in rgb.shape[:2])
    means = np.empty((2, height // 2, width // 2), np.float32)
    out = rgb.copy()
    bands = range(0, height, 512)
    for y in bands:
        part = rgb[y : min(y + 512, height), :width].astype(np.float32)
        for plane, weights in enumerate(CHROMA):
            values = (part @ np.asarray(weights, np.float32)).reshape(
                part.shape[0] // 2, 2, width // 2, 2
            )
            means[plane, y // 2 : (y + part.shape[0]) // 2] = values.mean((1, 3))
    for y in bands:
        end = min(y + 512, height)
        part = rgb[y:end, :width].astype(np.float32)
        luma = part @ np.asarray(LUMA, np.float32)
        rows = np.arange(y, end)
        cb, cr = (spread(means[plane], rows, width, triangle) for plane in (0, 1))
        picture = np.stack(
            (
                luma + 1.402 * cr,
                luma - 0.344136 * cb - 0.714136 * cr,
                luma + 1.772 * cb,
            ),
            axis=-1,
        )
        out[y:end, :width] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return out


def spread(
    half: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    width: int,
    triangle: bool,
) -> npt.NDArray[np.float32]:
    """Rows of a plane of half the size at full size."""

    def axis(
        plane: npt.NDArray[np.float32], at: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        near = plane[at // 2]
        if not triangle:
            return near
        far = np.clip(at // 2 + np.where(at % 2 == 0, -1, 1), 0, len(plane) - 1)
        mixed: npt.NDArray[np.float32] = 0.75 * near + 0.25 * plane[far]
        return mixed

    return axis(axis(half, rows).T, np.arange(width)).T


def pushed_px(raw: Path, work: Path) -> list[int]:
    """Class areas of pixels that went through the C interface."""
    record = work / "pushed.json"
    options = ["--slide", str(raw), "--engine", str(ENGINE), "--strip", "4096x512"]
    scan(*options, "--json", str(record))
    areas: list[int] = json.loads(record.read_text("utf-8"))["class_px"]
    return areas


def patches(result: her2fast.Result) -> dict[tuple[int, int], tuple[int, int, float]]:
    """Of kept patches: class, tumor px, the lead of the best class in logits."""
    assert result.measurement is not None
    core = result.measurement.core
    found = _core.patch_outcomes(core, **result.settings.core_arguments())
    ordered = np.sort(found["logits"], axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    return {
        (int(row), int(column)): (int(kind), int(tumor), float(gap))
        for row, column, kind, tumor, gap, kept in zip(
            found["row"],
            found["column"],
            found["predicted"],
            found["tumor_px"],
            lead,
            found["kept"],
            strict=True,
        )
        if kept
    }


def shares(areas: list[int]) -> npt.NDArray[np.float64]:
    total = sum(areas)
    return np.asarray(areas, np.float64) / max(total, 1)


def points(first: list[int], second: list[int]) -> float:
    """Largest difference of a class's share, percent points."""
    return round(100 * float(np.abs(shares(first) - shares(second)).max()), 3)


def compare(first: her2fast.Result, second: her2fast.Result) -> Row:
    """What moved from the first to the second."""
    a, b = patches(first), patches(second)
    tumor = sum(px for _, px, _ in a.values())
    both = a.keys() & b.keys()
    changed = [key for key in both if a[key][0] != b[key][0]]
    alone = [a[key] for key in a.keys() - both] + [b[key] for key in b.keys() - both]
    one = first.record["class_px"]
    other = second.record["class_px"]
    leads = [a[key][2] for key in changed]
    return {
        "points": points(one, other),
        "points_by_class": [
            round(100 * float(d), 3) for d in shares(other) - shares(one)
        ],
        "class_px": other,
        "tumor_change_percent": round(100 * (sum(other) / max(sum(one), 1) - 1), 3),
        "patches": len(a),
        "patches_changed": len(changed),
        "tumor_changed_percent": round(
            100 * sum(a[key][1] for key in changed) / max(tumor, 1), 3
        ),
        "patches_kept_in_one": len(alone),
        "tumor_kept_in_one_percent": round(
            100 * sum(px for _, px, _ in alone) / max(tumor, 1), 3
        ),
        "lead_of_changed": round(float(np.median(leads)), 3) if leads else None,
        "lead_of_all": round(float(np.median([gap for *_, gap in a.values()])), 3),
        "score": second.score,
    }


def at_working_spacing(case: Case, rgb: Rgb, folder: Path, pushed: list[int]) -> Row:
    """What JPEG does to a level stored at 1 um/px, colors and quality told apart."""
    factor = round(1 / case.spec.slide.spacing_um)
    height, width = (side // factor * factor for side in rgb.shape[:2])
    blocks = rgb[:height, :width].reshape(
        height // factor, factor, width // factor, factor, 3
    )
    one = np.floor(blocks.mean((1, 3)) + 0.5).astype(np.uint8)
    path = folder / "one.svs"

    def scored(pixels: Rgb) -> her2fast.Result:
        path.unlink(missing_ok=True)
        store(path, pixels, 0, [1], 1.0)
        return her2fast.score(path, reading="exact", workers=1)

    def jpeg(quality: int, subsampling: int) -> Rgb:
        out = io.BytesIO()
        Image.fromarray(one).save(out, "jpeg", quality=quality, subsampling=subsampling)
        return np.asarray(Image.open(out).convert("RGB"))

    reference = scored(one)
    if reference.record["class_px"] != pushed:
        raise SystemExit(f"{case.name}: pushed {pushed}, mean {reference.record}")
    stored = {"chroma_only": chroma_420(one, triangle=True)}
    for quality in (QUALITIES[0], QUALITIES[-1]):
        stored[f"444_q{quality}"] = jpeg(quality, 0)
        stored[f"420_q{quality}"] = jpeg(quality, 2)
    return {name: compare(reference, scored(pixels)) for name, pixels in stored.items()}


def measure(case: Case, work: Path) -> Row:
    """One slide: all contenders against the pushed pixels."""
    rgb = pixels(case, work)
    spacing_um = case.spec.slide.spacing_um
    with tempfile.TemporaryDirectory(dir=work) as folder:
        raw = Path(folder, "raw.svs")
        store(raw, rgb, 0, [1], spacing_um)
        reference = her2fast.score(raw, reading="exact", workers=1)
        pushed = pushed_px(raw, Path(folder))
        if reference.record["class_px"] != pushed:
            raise SystemExit(f"{case.name}: pushed {pushed}, read {reference.record}")
        row: Row = {
            "name": case.name,
            "kind": case.kind,
            "seed": case.seed,
            "size_px": list(case.spec.size_px),
            "spacing_um": spacing_um,
            "profile": case.spec.scanner.profile,
            "status": reference.status,
            "score": reference.score,
            "pushed_px": pushed,
            "chroma_only": {},
            "against_pushed": {},
            "default_against_level0_exact": {},
        }
        row["stored_at_working_spacing"] = at_working_spacing(
            case, rgb, Path(folder), pushed
        )
        for name, triangle in (("triangle", True), ("repeated", False)):
            path = Path(folder, "chroma.svs")
            store(path, chroma_420(rgb, triangle=triangle), 0, [1], spacing_um)
            result = her2fast.score(path, reading="exact", workers=1)
            row["chroma_only"][name] = compare(reference, result)
        for quality in QUALITIES:
            results = {}
            for name, (downsamples, reading) in READINGS.items():
                path = Path(folder, f"{quality}-{len(downsamples)}.svs")
                if not path.exists():
                    store(path, rgb, quality, downsamples, spacing_um)
                results[name] = her2fast.score(path, reading=reading, workers=1)
            row["against_pushed"][quality] = {
                name: compare(reference, result) for name, result in results.items()
            }
            row["default_against_level0_exact"][quality] = compare(
                results["level0_exact"], results["default"]
            )
    return row


def shipped() -> Row:
    """The demo's files as they are: full decoding of level 0 against the default."""
    out: Row = {}
    for path in demo_paths():
        exact = her2fast.score(path, reading="exact", workers=1)
        out[path.stem] = compare(exact, her2fast.score(path, workers=1))
        out[path.stem]["status"] = exact.status
    return out


def pooled(rows: list[Row], quality: int) -> Row:
    """Shares of all slides together."""
    pushed = np.sum([row["pushed_px"] for row in rows], axis=0).tolist()
    areas = {
        name: np.sum(
            [row["against_pushed"][quality][name]["class_px"] for row in rows], axis=0
        ).tolist()
        for name in READINGS
    }
    return {name: points(pushed, areas[name]) for name in READINGS} | {
        "default_against_level0_exact": points(areas["level0_exact"], areas["default"])
    }


def summary(rows: list[Row]) -> Row:
    """Per kind and quality: slides within the goals, the worst, the pooled shares."""
    out: Row = {}
    for kind in sorted({row["kind"] for row in rows}):
        some = [row for row in rows if row["kind"] == kind]
        out[kind] = {
            "chroma_only_worst_points": {
                name: max(row["chroma_only"][name]["points"] for row in some)
                for name in ("triangle", "repeated")
            },
            "stored_at_working_spacing_worst_points": {
                name: max(
                    row["stored_at_working_spacing"][name]["points"] for row in some
                )
                for name in some[0]["stored_at_working_spacing"]
            },
        }
        for quality in QUALITIES:
            moved = {
                name: [row["against_pushed"][quality][name]["points"] for row in some]
                for name in READINGS
            }
            default = [
                row["default_against_level0_exact"][quality]["points"] for row in some
            ]
            out[kind][quality] = {
                "slides": len(some),
                "quality_within_half_a_point": sum(
                    p <= 0.5 for p in moved["level0_exact"]
                ),
                "default_within_a_point": sum(p <= 1.0 for p in default),
                "worst_points": {name: max(values) for name, values in moved.items()}
                | {"default_against_level0_exact": max(default)},
                "pooled_points": pooled(some, quality),
            }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="keeps drawn pixels and rows here")
    parser.add_argument("--side-um", type=float, default=900.0, help="drawn slides")
    parser.add_argument("--slide", action="append", help="only these")
    options = parser.parse_args()
    build()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = []
        for case in cases(options.side_um):
            if options.slide and case.name not in options.slide:
                continue
            rows.append(measure(case, work))
            sys.stderr.write(f"{case.name}\n")
    result = {
        "question": "Do pushed pixels score as the same pixels stored as JPEG?",
        "synthetic": True,
        "her2fast": her2fast.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "summary": summary(rows),
        "shipped_default_against_exact": shipped() if not options.slide else {},
        "slides": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
