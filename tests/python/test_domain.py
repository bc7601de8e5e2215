# SPDX-License-Identifier: Apache-2.0
"""Input far from the training data: measured, stored, judged, shown."""

from __future__ import annotations

import csv
import json

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packages import BrownClassifier, edit_json, write_method, write_model

import her2fast
from her2fast import _core
from her2fast.cli import run
from her2fast.errors import UsageError
from her2fast.models.package import load_package
from her2fast.report.html import report_html
from reference import domain as reference

PATCH_PX = 64
PAD_PX = 320
CLASSES = ["0", "1+", "2+", "3+"]
NAMES = ["color", "feature"]


def measure(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    names: list[str] | None = None,
) -> _core.Measurement:
    """Patch (r, c) is all tumor with the distances first/4 and second/4, 0 to 15.

    They are written into the blue and the green of the tissue's color.
    """
    names = NAMES if names is None else names
    blocks = np.stack([np.full_like(first, 150), 105 + second, 60 + first], -1)
    rgb = blocks.repeat(PATCH_PX, 0).repeat(PATCH_PX, 1).astype(np.uint8)
    pad = ((PAD_PX, PAD_PX), (PAD_PX, PAD_PX), (0, 0))
    canvas = np.pad(rgb, pad, constant_values=255)
    session = _core.PatchSession(
        (rgb.shape[1], rgb.shape[0]),
        (1.0, 1.0),
        spacing_um=1.0,
        patch_px=PATCH_PX,
        tile_px=256,
        halo_px=32,
        class_names=CLASSES,
        classify_batch=7,
        has_segmenter=False,
        segment_batch=1,
        segment_channels=1,
        distance_names=names,
    )
    while requests := session.wanted(64):
        for r in requests:
            y, x = r.y_px + PAD_PX, r.x_px + PAD_PX
            tile = canvas[y : y + r.height_px, x : x + r.width_px]
            session.push(r.id, np.ascontiguousarray(tile), "ok")
        while (batch := session.next_batch()) is not None:
            middle = batch.rgb[:, 32, 32].astype(np.float32)
            out = np.zeros((len(middle), 4 + len(names)), np.float32)
            out[:, 1] = 1.0
            for k in range(len(names)):
                out[:, 4 + k] = (middle[:, 2 - k] - (60, 105)[k]) / 4
            session.put(batch.id, out)
    return session.finish()


def limits(cuts: list[float], max_share: float) -> tuple[list[int], int]:
    return [round(cut * 65536) for cut in cuts], round(max_share * 1000)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(5, 9),
    columns=st.integers(6, 9),
    cuts=st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    permille=st.integers(0, 1000),
    seed=st.integers(0, 2**16),
)
def test_finding_equals_reference(rows, columns, cuts, permille, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 16, (2, rows, columns))
    cuts = [round(cut * 65536) / 65536 for cut in cuts]
    core = measure(first, second)
    found = _core.decide(core, check_stain=False, domain=limits(cuts, permille / 1000))[
        "domain"
    ]
    outside, means, flagged = reference.judge(
        [PATCH_PX * PATCH_PX] * first.size,
        np.stack([first.ravel(), second.ravel()], 1) / 4,
        cuts,
        permille / 1000,
    )
    assert found["outside_px"] == outside
    assert found["means"] == pytest.approx(means, abs=1e-9)
    assert found["is_outside"] == flagged


def test_by_hand():
    first = np.zeros((6, 10), np.int64)
    first[0, :7] = 15  # 7 of 60 patches: 11.7 %
    core = measure(first, np.ones_like(first))

    def flags(cuts, share, **options):
        decision = _core.decide(
            core, check_stain=False, domain=limits(cuts, share), **options
        )
        return "OUT_OF_DOMAIN" in decision["review_flags"], decision

    flagged, decision = flags([3.0, 1.0], 0.1)
    assert flagged
    assert decision["review_required"]
    assert decision["domain"]["outside_px"] == 7 * 4096
    assert decision["domain"]["means"] == [7 * 3.75 / 60, 0.25]
    assert not flags([3.0, 1.0], 0.117)[0]
    assert not flags([3.75, 1.0], 0.0)[0]  # on the cut is not beyond it
    assert flags([3.75, 0.2], 0.9)[0]  # all are beyond the second
    # a region without the first row of patches
    ring = np.array([[0, 64], [640, 64], [640, 384], [0, 384]], float)
    assert not flags([3.0, 1.0], 0.0, roi=[(False, [ring])])[0]
    assert flags([3.0, 1.0], 0.1, rule_set=None)[0]  # also where only areas are asked
    silent = _core.decide(core, check_stain=False)
    assert silent["domain"] is None
    assert "OUT_OF_DOMAIN" not in silent["review_flags"]


def test_stored_and_read_again():
    rng = np.random.default_rng(1)
    core = measure(*rng.integers(0, 16, (2, 5, 7)))
    assert core.distance_names == NAMES
    data = core.to_bytes()
    again = _core.Measurement.from_bytes(data)
    assert again.distance_names == NAMES
    assert again.to_bytes() == data
    chosen = limits([1.5, 1.5], 0.2)
    assert _core.decide(again, check_stain=False, domain=chosen) == _core.decide(
        core, check_stain=False, domain=chosen
    )
    without = measure(*rng.integers(0, 16, (2, 5, 7)), names=[])
    assert b"distance_names" not in without.to_bytes()
    assert len(without.to_bytes()) < len(data)


def test_bad_limits():
    core = measure(*np.zeros((2, 6, 6), np.int64))
    for domain, text in [
        (([65536], 100), "a cut for each"),
        (([], 100), "a cut for each"),
        (([65536] * 2, 1001), "max_share_permille"),
        (([65536] * 2, -1), "max_share_permille"),
    ]:
        with pytest.raises(ValueError, match=text):
            _core.decide(core, check_stain=False, domain=domain)
    with pytest.raises(ValueError, match="at most 16 distances"):
        measure(*np.zeros((2, 2, 2), np.int64), names=[f"d{k}" for k in range(17)])


class JudgedBrown(torch.nn.Module):
    """The classes of `BrownClassifier`; how blue a patch is, as a distance."""

    def __init__(self) -> None:
        super().__init__()
        self.brown = BrownClassifier(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blue = 10.0 * (x[:, 2] - x[:, 0]).mean((1, 2)).unsqueeze(1)
        return torch.cat([self.brown(x), blue.clamp(min=0.0)], 1)


def judged_method(folder, **domain):
    write_method(folder, domain={"cuts": {"blue": 0.5}, "max_share": 0.2, **domain})
    write_model(
        folder / "classifier",
        JudgedBrown(),
        keys={"task": "classify", "distance_names": ["blue"]},
    )
    return folder


def colored_slide(path, rgb, side_px=700):
    picture = np.full((side_px, side_px, 3), 255, np.uint8)
    rng = np.random.default_rng(0)
    grain = rng.integers(-12, 13, (side_px - 80, side_px - 80, 1))
    picture[40:-40, 40:-40] = np.clip(np.array(rgb) + grain, 0, 255)
    _core.write_pyramid(
        str(path), picture, spacing_um=1.0, tile_px=256, jpeg_quality=95,
        downsamples=[1], aperio=True,
    )  # fmt: skip
    return picture


def test_from_slide_to_worklist_and_back(tmp_path):
    package = judged_method(tmp_path / "package")
    slides = tmp_path / "slides"
    slides.mkdir()
    colored_slide(slides / "usual.svs", (160, 110, 80))
    blue = colored_slide(slides / "blue.svs", (130, 110, 200))
    edit_json(package / "method.json", lambda m: m.update(stain=None))
    out = tmp_path / "out"
    options = ["-m", str(package), "--allow-unknown-model", "-n", "1"]
    assert run(["score", str(slides), "-o", str(out), *options]) == 0
    records = {
        name: json.loads((out / "results" / f"{name}.json").read_text())
        for name in ("usual", "blue")
    }
    assert "OUT_OF_DOMAIN" not in records["usual"]["review_flags"]
    assert records["usual"]["domain"]["outside_share"] < 0.2
    far = records["blue"]
    assert "OUT_OF_DOMAIN" in far["review_flags"]
    assert far["domain"]["outside_share"] > 0.9
    assert far["domain"]["distances"]["blue"]["cut"] == 0.5
    assert far["domain"]["distances"]["blue"]["mean"] > 1.5
    for table in ("worklist.csv", "results.csv"):
        with (out / table).open(encoding="utf-8", newline="") as file:
            rows = {row["slide"]: row for row in csv.DictReader(file)}
        flags = "flags" if table == "worklist.csv" else "review_flags"
        assert "OUT_OF_DOMAIN" in rows["blue.svs"][flags]
        assert "OUT_OF_DOMAIN" not in rows["usual.svs"][flags]
        assert float(rows["blue.svs"]["out_of_domain_share"]) > 0.9
    page = report_html(far).decode()
    assert "Unlike the training data" in page
    assert "review above 20 %" in page

    # deciding again on the stored file keeps the flag, byte for byte
    before = (out / "results" / "blue.json").read_bytes()
    assert run(["rescore", str(out)]) == 0
    assert (out / "results" / "blue.json").read_bytes() == before
    # as do pixels that a host pushes
    session = her2fast.Session(
        package,
        extent_px=(700, 700),
        level0_spacing_um=(1.0, 1.0),
        allow_unknown_model=True,
    )
    canvas = np.pad(blue, ((400, 400), (400, 400), (0, 0)), constant_values=255)
    while requests := session.wanted(16):
        for r in requests:
            y, x = r.y_px + 400, r.x_px + 400
            session.push(r.id, canvas[y : y + r.height_px, x : x + r.width_px])
        session.run_models()
    record = her2fast.decide(session.finish()).record
    assert "OUT_OF_DOMAIN" in record["review_flags"]
    assert record["domain"]["outside_share"] > 0.9


def test_a_package_without_limits_says_nothing(tmp_path):
    package = judged_method(tmp_path / "package")
    edit_json(
        package / "method.json", lambda m: (m.pop("domain"), m.update(stain=None))
    )
    colored_slide(tmp_path / "blue.svs", (130, 110, 200))
    result = her2fast.score(
        tmp_path / "blue.svs", model=package, allow_unknown_model=True
    )
    assert result.status == "scored"
    assert result.record["domain"] is None
    assert result.record["method"]["domain"] is None
    assert "OUT_OF_DOMAIN" not in result.record["review_flags"]
    # records of releases that knew no domain are read as before
    method = dict(result.record["method"])
    del method["domain"]
    from her2fast.record import settings_for

    assert settings_for(method).domain is None


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        ({"cuts": {"red": 1.0}}, "distance_names"),
        ({"cuts": {}}, "at least 1 item"),
        ({"cuts": {"blue": 0.0}}, "greater than 0"),
        ({"cuts": {"blue": float("inf")}}, "finite"),
        ({"max_share": 1.5}, "less than or equal to 1"),
    ],
)
def test_bad_packages(tmp_path, domain, text):
    with pytest.raises(UsageError, match=text):
        load_package(judged_method(tmp_path / "package", **domain))


def test_distances_are_the_classifiers(tmp_path):
    package = judged_method(tmp_path / "package")
    config = package / "classifier" / "config.json"
    edit_json(config, lambda c: c["her2fast"].update(distance_names=["a", "a"]))
    with pytest.raises(UsageError, match="distinct distance_names"):
        load_package(package)
    edit_json(config, lambda c: c["her2fast"].update(distance_names=[]))
    edit_json(package / "method.json", lambda m: m.pop("domain"))
    colored_slide(tmp_path / "a.svs", (160, 110, 80))
    result = her2fast.score(tmp_path / "a.svs", model=package, allow_unknown_model=True)
    assert result.code == "MODEL_CLASSES"  # one value too many
    config = package / "segmenter" / "config.json"
    edit_json(config, lambda c: c["her2fast"].update(distance_names=["blue"]))
    with pytest.raises(UsageError, match="no distance_names of a segmenter"):
        load_package(package)


def test_probabilities_stay_apart_from_distances(tmp_path):
    """With activation none the classes become logits; a distance above 1 stays."""
    from her2fast.models.runner import open_runner

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            row = torch.tensor([[0.7, 0.1, 0.1, 0.1, 7.5]])
            return row.repeat_interleave(x.shape[0], 0)

    folder = write_model(
        tmp_path / "model",
        Fixed(),
        keys={"activation": "none", "distance_names": ["far"]},
    )
    package = load_package(folder)
    assert package.distance_names == ["far"]
    out = open_runner(package.classify).run(np.zeros((2, 64, 64, 3), np.uint8))
    np.testing.assert_allclose(out[:, :4], np.log([[0.7, 0.1, 0.1, 0.1]] * 2), 1e-5)
    np.testing.assert_array_equal(out[:, 4], [7.5, 7.5])
