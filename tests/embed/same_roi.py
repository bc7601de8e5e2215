# SPDX-License-Identifier: Apache-2.0
"""Regions of interest: what the C interface takes and refuses is what Python does.

Hundreds of drawings, sound and broken, go through `her2_measurement_decide` and
`her2fast.decide` on one measurement: both refuse with the same code, or both give the
same record.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import her2fast
from her2fast.models.package import load_package

SIZE_PX = 2000
CODES = {14: "ROI_INVALID", 15: "ROI_OUTSIDE"}
#: Of a loaded measurement the C side does not know where it came from.
SOURCE_KEYS = {
    *("slide", "reading_mode", "measurement_key", "decision_key", "device", "warnings")
}

Ring = list[list[float]]


class PackageOptions(ctypes.Structure):
    """her2_package_options."""

    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("folder", ctypes.c_char_p),
        ("known_models", ctypes.c_char_p),
        ("allow_unknown", ctypes.c_int32),
    ]


class DecideOptions(ctypes.Structure):
    """her2_decide_options."""

    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("roi_geojson", ctypes.c_char_p),
        ("roi_bytes", ctypes.c_uint64),
        ("guideline", ctypes.c_char_p),
        ("ish", ctypes.c_int32),
    ]


class Library:
    """Just enough of her2fast.h."""

    def __init__(self, path: str, folder: Path, measurement: bytes) -> None:
        self._c = ctypes.CDLL(path)
        for name in ("her2_decision_json", "her2_last_error"):
            getattr(self._c, name).restype = ctypes.c_char_p
        options = PackageOptions(ctypes.sizeof(PackageOptions), str(folder).encode())
        options.allow_unknown = 0
        options.known_models = str(folder.parent / "known.json").encode()
        package = ctypes.c_void_p()
        self._need(
            self._c.her2_package_open(ctypes.byref(options), ctypes.byref(package))
        )
        self._measurement = ctypes.c_void_p()
        size = ctypes.c_uint64(len(measurement))
        out = ctypes.byref(self._measurement)
        self._need(self._c.her2_measurement_load(package, measurement, size, out))

    def _need(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(self._c.her2_last_error().decode())

    def decide(self, geojson: str) -> dict[str, Any] | str:
        """The record, or the code that was returned."""
        options = DecideOptions(ctypes.sizeof(DecideOptions), geojson.encode())
        decision = ctypes.c_void_p()
        status = self._c.her2_measurement_decide(
            self._measurement, ctypes.byref(options), ctypes.byref(decision)
        )
        if status != 0:
            return CODES.get(status, str(status))
        record: dict[str, Any] = json.loads(self._c.her2_decision_json(decision))
        self._c.her2_decision_close(decision)
        return record


def star(rng: random.Random, x: float, y: float, radius: float, points: int) -> Ring:
    """A ring that is simple by construction: angles ascend around its center."""
    import math

    ring = []
    for k in range(points):
        angle = 2 * math.pi * (k + 0.8 * rng.random()) / points
        reach = radius * rng.uniform(0.4, 1)
        ring.append([x + reach * math.cos(angle), y + reach * math.sin(angle)])
    return [*ring, ring[0]]


def polygon(rng: random.Random) -> list[Ring]:
    """An outline, perhaps with a hole; sometimes broken."""
    x, y = rng.uniform(-200, SIZE_PX + 200), rng.uniform(-200, SIZE_PX + 200)
    radius = rng.uniform(20, 900)
    rings = [star(rng, x, y, radius, rng.randint(4, 30))]
    if rng.random() < 0.4:  # within the smallest reach of the outline, or across it
        across = 1 if rng.random() < 0.7 else 5
        rings.append(star(rng, x, y, radius * 0.15 * across, rng.randint(4, 9)))
    if rng.random() < 0.25:  # two vertices change places: mostly a crossing
        ring = rings[0]
        i, j = sorted(rng.sample(range(1, len(ring) - 1), 2))
        ring[i], ring[j] = ring[j], ring[i]
    if rng.random() < 0.1:
        rings[0] = [[round(a), round(b)] for a, b in rings[0]]
    return rings


def drawing(rng: random.Random) -> str:
    """A GeoJSON text as QuPath writes it."""
    features: list[Any] = []
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(["Tumor", "Ignore*", "Control: Tumor", "exclude", "Region"])
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": polygon(rng)}
        if rng.random() < 0.2:
            geometry = {"type": "MultiPolygon", "coordinates": [polygon(rng)]}
        properties = {"classification": {"name": name, "color": [0, 0, 0]}}
        feature = {"type": "Feature", "geometry": geometry}
        features.append({**feature, "properties": properties})
    if rng.random() < 0.1:
        return json.dumps(features)
    return json.dumps({"type": "FeatureCollection", "features": features})


BROKEN = (
    "",
    "{",
    "[]",
    "null",
    '{"type":"Point","coordinates":[1,2]}',
    '{"type":"Polygon","coordinates":[]}',
    '{"type":"Polygon","coordinates":[[[0,0],[9,0],[9,9],[0,9]]]}',
    '{"type":"Polygon","coordinates":[[[0,0],[9,0],[0,0]]]}',
    '{"type":"Polygon","coordinates":[[[0,0],[9,0],[18,0],[0,0]]]}',
    '{"type":"Polygon","coordinates":[[[0,0],[9,0],[9,"a"],[0,0]]]}',
    '{"type":"Polygon","coordinates":[[[0,0],[1e300,0],[9,9],[0,0]]]}',
    '{"type":"Polygon","coordinates":[[[0,0],[NaN,0],[9,9],[0,0]]]}',
    '{"type":"Polygon","coordinates":[[[0,0],[9,0],[9,9],[5,9],[5,12],[5,9],[0,9],[0,0]]]}',
    "[" * 70 + "]" * 70,
)


def expected(measurement: Any, geojson: str) -> dict[str, Any] | str:
    """What Python gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "roi.geojson")
        path.write_text(geojson)
        result = her2fast.decide(measurement, roi=path)
    record: dict[str, Any] = result.record
    return record["code"] if record["code"] in CODES.values() else record


def main(library: str, slide: str) -> int:
    """Returns 1 and shows the drawing where the two differ."""
    package = load_package(None)
    measurement = her2fast.score(slide, workers=2).measurement
    assert measurement is not None
    c = Library(library, Path(package.classify.folder).parent, measurement.to_bytes())
    rng = random.Random(5)
    outcomes: dict[str, int] = {}
    for text in (*BROKEN, *(drawing(rng) for _ in range(150))):
        need, got = expected(measurement, text), c.decide(text)
        if isinstance(need, dict) and isinstance(got, dict):
            if not any("not checked" in warning for warning in got["warnings"]):
                print(f"no word on whose measurement this is: {got['warnings']}")
                return 1
            need = {k: v for k, v in need.items() if k not in SOURCE_KEYS}
            got = {k: v for k, v in got.items() if k not in SOURCE_KEYS}
        if need != got:
            print(f"{text}\nneed {need}\ngot  {got}")
            return 1
        outcome = need if isinstance(need, str) else str(need["status"])
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if min(outcomes.get(k, 0) for k in ("ROI_INVALID", "ROI_OUTSIDE", "scored")) < 5:
        print(f"too few of a kind: {outcomes}")
        return 1
    print(f"equal: {outcomes}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
