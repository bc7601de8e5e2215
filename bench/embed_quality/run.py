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
from pathlib import Path

import numpy as np
from cases import Case, Rgb, cases, large_cases, pixels
from coding import chroma_420, means, store
from moved import Row, compare, points
from PIL import Image
from pushing import as_stored, pushed, told_wrong
from real import real_cores

import her2fast
from her2fast.golden import demo_paths
from her2fast.models.package import load_package

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from embed_scan.run import build  # noqa: E402

QUALITIES = (70, 80, 90)
READINGS = {
    # name: (downsamples, reading)
    "level0_exact": ([1], "exact"),
    "level0_scaled": ([1], "scaled"),
    "default": ([1, 4, 16], "scaled"),
}


def at_working_spacing(case: Case, rgb: Rgb, folder: Path, pushed: list[int]) -> Row:
    """What JPEG does to a level stored at 1 um/px, colors and quality told apart."""
    one = means(rgb, round(1 / case.spec.slide.spacing_um))
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


def colors_only(
    rgb: Rgb, reference: her2fast.Result, folder: Path, spacing_um: float
) -> Row:
    """What the colors' resolution does at level 0."""
    out = {}
    for name, triangle in (("triangle", True), ("repeated", False)):
        path = folder / "chroma.svs"
        store(path, chroma_420(rgb, triangle=triangle), 0, [1], spacing_um)
        result = her2fast.score(path, reading="exact", workers=1)
        out[name] = compare(reference, result)
    return out


def measure(case: Case, work: Path) -> Row:
    """One slide: all contenders against the pushed pixels."""
    rgb = pixels(case, work)
    spacing_um = case.spec.slide.spacing_um
    with tempfile.TemporaryDirectory(dir=work) as folder:
        raw = Path(folder, "raw.svs")
        store(raw, rgb, 0, [1], spacing_um)
        reference = her2fast.score(raw, reading="exact", workers=1)
        pushed_px = pushed(raw)["class_px"]
        if reference.record["class_px"] != pushed_px:
            raise SystemExit(
                f"{case.name}: pushed {pushed_px}, read {reference.record}"
            )
        row: Row = {
            "name": case.name,
            "kind": case.kind,
            "seed": case.seed,
            "size_px": list(case.spec.size_px),
            "spacing_um": spacing_um,
            "profile": case.spec.scanner.profile,
            "status": reference.status,
            "score": reference.score,
            "pushed_px": pushed_px,
            "chroma_only": {},
            "stored_at_working_spacing": {},
            "against_pushed": {},
            "default_against_level0_exact": {},
            "as_stored": {},
        }
        exact = {}
        if not case.large:
            row["stored_at_working_spacing"] = at_working_spacing(
                case, rgb, Path(folder), pushed_px
            )
            row["chroma_only"] = colors_only(rgb, reference, Path(folder), spacing_um)
        for quality in QUALITIES:
            results, files = {}, {}
            for name, (downsamples, reading) in READINGS.items():
                path = Path(folder, f"{quality}-{len(downsamples)}.svs")
                if not path.exists():
                    store(path, rgb, quality, downsamples, spacing_um)
                results[name] = her2fast.score(path, reading=reading, workers=1)
                files[name] = (path, reading, results[name])
            row["against_pushed"][str(quality)] = {
                name: compare(reference, result) for name, result in results.items()
            }
            row["default_against_level0_exact"][str(quality)] = compare(
                results["level0_exact"], results["default"]
            )
            row["as_stored"][str(quality)] = as_stored(raw, quality, files)
            exact[quality] = results["level0_exact"]
        row["told_80"] = told_wrong(raw, exact)
    return row


def shipped() -> Row:
    """The demo's files as they are: full decoding of level 0 against the default."""
    out: Row = {}
    for path in demo_paths():
        exact = her2fast.score(path, reading="exact", workers=1)
        out[path.stem] = compare(exact, her2fast.score(path, workers=1))
        out[path.stem]["status"] = exact.status
    return out


def pooled(rows: list[Row], quality: str) -> Row:
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


def turned(rows: list[Row], quality: str) -> Row:
    """Tumor in patches called higher, and lower, than of pushed pixels; means."""

    def mean(name: str, way: str) -> float:
        found = [row["against_pushed"][quality][name][way] for row in rows]
        return round(float(np.mean(found)), 3)

    ways = ("turned_up_percent", "turned_down_percent")
    return {name: [mean(name, way) for way in ways] for name in READINGS}


def summary(rows: list[Row]) -> Row:
    """Per kind and quality: slides within the goals, the worst, the pooled shares."""
    out: Row = {}
    for kind in sorted({row["kind"] for row in rows}):
        some = [row for row in rows if row["kind"] == kind]
        out[kind] = {
            "chroma_only_worst_points": {
                name: max(row["chroma_only"][name]["points"] for row in some)
                for name in some[0]["chroma_only"]
            },
            "stored_at_working_spacing_worst_points": {
                name: max(
                    row["stored_at_working_spacing"][name]["points"] for row in some
                )
                for name in some[0]["stored_at_working_spacing"]
            },
        }
        for quality in map(str, QUALITIES):
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
                "turned_up_and_down_percent": turned(some, quality),
                "scores_equal": {
                    name: sum(
                        row["against_pushed"][quality][name]["score"] == row["score"]
                        for row in some
                    )
                    for name in READINGS
                },
                "as_stored_same_areas": {
                    name: sum(
                        row["as_stored"][quality][name]["same_areas"] for row in some
                    )
                    for name in READINGS
                },
                "told_80_worst_points": max(row["told_80"][quality] for row in some),
            }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="keeps drawn pixels and rows here")
    parser.add_argument("--side-um", type=float, default=900.0, help="drawn slides")
    parser.add_argument("--large", action="store_true", help="only slides of 14 mm2")
    parser.add_argument("--real", type=Path, help="folder of real cores; none: not")
    parser.add_argument("--slide", action="append", help="only these")
    options = parser.parse_args()
    build()
    models = {
        model.config.her2fast.task: model.sha256 for model in load_package(None).models
    }
    package = "-".join(sha256[:8] for sha256 in models.values())
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = []
        chosen = large_cases() if options.large else cases(options.side_um)
        for case in chosen:
            if options.slide and case.name not in options.slide:
                continue
            kept = work / f"{case.name}-{case.seed}-{package}.json"
            if not kept.exists():
                kept.write_text(json.dumps(measure(case, work)), "utf-8")
            rows.append(json.loads(kept.read_text("utf-8")))
            sys.stderr.write(f"{case.name}\n")
    result = {
        "question": "Do pushed pixels score as the same pixels stored as JPEG?",
        "synthetic": True,
        "her2fast": her2fast.__version__,
        "models_sha256": models,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "summary": summary(rows),
        "shipped_default_against_exact": {}
        if options.large or options.slide
        else shipped(),
        "slides": rows,
    }
    if options.real:
        result["real_cores"] = real_cores(options.real, QUALITIES)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
