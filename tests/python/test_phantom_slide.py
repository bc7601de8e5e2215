# SPDX-License-Identifier: Apache-2.0
"""Whole phantom slides: what is asked for, what is drawn, that its truth is true."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import phantom_patches

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast import _core, guidelines, kernels
from her2fast.phantom import artifacts, plan, spec, truth
from her2fast.phantom import slide as slides
from her2fast.phantom.ground import Tissue

GUIDE = Path(__file__).parents[2] / "docs/guide/phantoms.md"
SMALL = """
[slide]
width_um = 1800
height_um = 700
[tumor]
mixture = [1.0, 0.0, 0.0, 0.0]
free_share = 0.0
[tissue]
lobule_um = 300
[control]
classes = ["3+"]
diameter_um = 400
distance_um = 300
[scanner]
profile = "reference"
"""


def parse(text: str) -> spec.SlideSpec:
    return spec.check_spec(tomllib.loads(text), "test.toml")


@pytest.fixture(scope="module")
def drawn() -> slides.Slide:
    return slides.draw_slide(parse(SMALL), 11)


@pytest.fixture(scope="module")
def maps(drawn: slides.Slide) -> truth.Maps:
    return truth.Maps(drawn)


# --- the specification ----------------------------------------------------------------


def test_default_file_says_the_defaults():
    text = spec.default_toml()
    assert spec.check_spec(tomllib.loads(text), "x") == spec.SlideSpec()
    for table in spec.SlideSpec.model_fields:
        assert f"[{table}]" in text
    # What is only shown as a comment must be right too.
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    pens = [line for line in lines if line.startswith(("ink", "over"))]
    assert parse("[[artifacts.pen]]\n" + "\n".join(pens)).artifacts.pen[0].ink == "blue"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[slide", "SPEC_SYNTAX", "no TOML"),
        ("[slid]", "SPEC_UNKNOWN_KEY", "slid"),
        ("[slide]\nwidht_um = 3", "SPEC_UNKNOWN_KEY", "known are width_um"),
        ("[slide]\nspacing_um = 5", "SPEC_RANGE", "slide.spacing_um: need 0.2 to 2"),
        ("[slide]\nspacing_um = nan", "SPEC_RANGE", "slide.spacing_um"),
        ("[slide]\nspacing_um = '1'", "SPEC_TYPE", "slide.spacing_um"),
        ("[slide]\nwidth_um = true", "SPEC_TYPE", "slide.width_um"),
        ("[tissue]\npieces = 1.5", "SPEC_TYPE", "tissue.pieces: need 1 to 24"),
        ("[tumor]\nmixture = [1.0, 0.5, 0, 0]", "SPEC_RANGE", "four shares"),
        ("[tumor]\nmixture = [1.0]", "SPEC_TYPE", "tumor.mixture"),
        ("[control]\nclasses = ['4+']", "SPEC_RANGE", "control.classes.0"),
        ("[scanner]\nprofile = 'x'", "SPEC_RANGE", "warm-scanner"),
        ("[[artifacts.pen]]\nink = 'pink'", "SPEC_RANGE", "artifacts.pen.0.ink"),
        ("[[artifacts.blur]]\nregion_um = [9, 0, 1, 5]", "SPEC_RANGE", "left < right"),
        ("[slide]\nwidth_um = 40000\nheight_um = 40000\nspacing_um = 0.25",
         "SPEC_RANGE", "400000000"),
        ("[slide]\nwidth_um = 1000\n[control]\nclasses = ['0']", "SPEC_RANGE", "400"),
        ("[control]\nclasses = ['0', '0', '0', '0']", "SPEC_RANGE", "height_um"),
        ("day = 1979-05-27", "SPEC_TYPE", "dates"),
    ],
)  # fmt: skip
def test_wrong_file_is_named_with_key_range_and_code(tmp_path, text, code, words):
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(spec.SpecError) as caught:
        spec.load_spec(path)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{code}: wrong.toml: ")
    assert words in str(caught.value)


def test_missing_file_and_codes_of_the_guide(tmp_path):
    with pytest.raises(spec.SpecError, match=r"nowhere\.toml") as caught:
        spec.load_spec(tmp_path / "nowhere.toml")
    assert caught.value.code == "SPEC_NOT_FOUND"
    guide = GUIDE.read_text(encoding="utf-8")
    for code in spec.SPEC_CODES:
        assert f"`{code}`" in guide
    for name, field in spec.SlideSpec.model_fields.items():
        for key in field.annotation.model_fields:
            assert f"`{key}`" in guide, f"docs/guide/phantoms.md lacks {name}.{key}"


def test_options_win_over_the_file():
    given = spec.with_options(parse(SMALL), score="2+", spacing_um=0.5)
    assert given.tumor.score == "2+"
    assert given.tumor.mixture is None
    assert given.slide.spacing_um == 0.5
    assert given.control.classes == ("3+",)
    with pytest.raises(spec.SpecError, match="profile"):
        spec.with_options(None, profile="sepia")


# --- what is drawn --------------------------------------------------------------------


def test_same_seed_same_slide_other_seed_another(drawn):
    again = slides.draw_slide(parse(SMALL), 11)
    other = slides.draw_slide(parse(SMALL), 12)
    rows = [slides.Camera(one).rows(256, 64) for one in (drawn, again, other)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()
    assert slides.slide_seed(11, 0) != slides.slide_seed(11, 1)


def test_lobules_share_the_tissue_out(drawn):
    """Every pixel well inside the outline is of one lobule, and of no other piece."""
    width, height = drawn.spec.size_px
    owners = np.zeros((height, width), np.int64)
    for patch in drawn.patches:
        lob = patch.lobule
        assert lob.x_px >= 0
        assert lob.x_px + lob.width_px <= width
        assert lob.y_px + lob.height_px <= height
        here = owners[
            lob.y_px : lob.y_px + lob.height_px, lob.x_px : lob.x_px + lob.width_px
        ]
        here += patch.own
    assert len(drawn.patches) > 4
    window = artifacts.Window.over(0, 0, width, height, 1.0)
    depth = plan.sample(drawn.plan.depth_um, window.x_um, window.y_um)
    assert (owners[depth < -40.0] == 0).all()
    # Three borders that meet may leave, or share, a few pixels.
    assert (owners[depth > 40.0] == 1).mean() > 0.999


@pytest.mark.parametrize("outline", ["resection", "biopsy", "cores"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_outlines_lie_inside_the_slide(outline, pieces):
    text = f"[tissue]\noutline = '{outline}'\npieces = {pieces}\ncore_um = 700"
    wanted = parse(text + "\n[control]\nclasses = ['3+', '0']\ndistance_um = 500")
    for seed in range(4):
        drawn = plan.draw_plan(wanted, seed)
        kinds = drawn.control_class
        assert [kind for kind in kinds if kind is not None] == [3, 0]
        # Where three cores do not fit, there are fewer.
        fit = 2 if outline == "cores" else 3
        assert sum(kind is None for kind in kinds) == min(pieces, fit)
        edges = np.concatenate(
            [drawn.label[[0, -1]].ravel(), drawn.label[:, [0, -1]].ravel()]
        )
        assert not edges.any()
        own = np.isin(drawn.label, np.flatnonzero([k is None for k in kinds]) + 1)
        strip = np.isin(drawn.label, np.flatnonzero([k is not None for k in kinds]) + 1)
        gap_um = (np.argmax(strip.any(0)) - np.flatnonzero(own.any(0))[-1]) * 5.0
        assert gap_um >= 300.0


def test_truth_is_where_the_stain_is(drawn, maps):
    """Brown on 3+ control tumor, none on glass; no tumor on glass."""
    width, height = drawn.spec.size_px
    camera = slides.Camera(drawn)
    rgb = np.concatenate(
        [camera.rows(y, min(256, height - y)) for y in range(0, height, 256)]
    )
    assert rgb.shape == (height, width, 3)
    glass = maps.tissue == Tissue.GLASS
    assert not (maps.classes[glass] > 0).any()
    red, blue = rgb[..., 0].astype(int), rgb[..., 2].astype(int)
    inner = maps.classes == truth.CONTROL_OFFSET + 4
    zero = maps.classes == 1
    assert (red - blue)[inner].mean() > (red - blue)[zero].mean() + 15
    assert maps.membrane[inner].mean() > 0.1
    assert not maps.membrane[maps.classes == 0].any()


def test_control_is_no_part_of_the_truth(drawn, maps):
    table = truth.patch_table(maps, 1.0)
    record = truth.truth_of(drawn, maps, table)
    assert record["fractions"] == [1.0, 0.0, 0.0, 0.0]
    assert record["label"] == "0"
    assert set(record["scores"].values()) == {"0"}
    assert record["control"]["tumor_px"][:3] == [0, 0, 0]
    assert record["control"]["tumor_px"][3] > 5000
    assert record["control"]["cores"][0]["class"] == "3+"
    assert sum(record["tumor_px"]) == int(maps.tumor.sum())
    assert sum(record["tumor_px"]) == int(table[..., :4].sum())
    assert record["tumor_mm2"] == pytest.approx(maps.tumor.sum() / 1e6, abs=1e-6)


def test_scores_are_those_of_the_rule_sets():
    """90 and 10 of a hundred, by hand: on the cut pham-2022 says 3+, asco-cap 2+."""
    areas = truth.area_truth([90, 0, 0, 10], 1.0)
    assert areas["fractions"] == [0.9, 0.0, 0.0, 0.1]
    assert areas["scores"]["pham-2022"] == "3+"
    assert areas["scores"]["asco-cap-2018"] == "2+"
    assert set(areas["scores"]) == {rules.name for rules in guidelines.rule_sets()}
    nothing = truth.area_truth([0, 0, 0, 0], 1.0)
    assert nothing["fractions"] is None
    assert set(nothing["scores"].values()) == {None}


def test_cells_lie_on_tumor_of_their_class(drawn, maps):
    agree = total = 0
    for patch in drawn.patches:
        columns = patch.cells.x_um.astype(int)
        rows = patch.cells.y_um.astype(int)
        kinds = maps.classes[rows, columns].astype(int) - 1
        kinds[kinds >= truth.CONTROL_OFFSET] -= truth.CONTROL_OFFSET
        agree += int((kinds == patch.cells.kind).sum())
        total += len(patch.cells)
    assert total > 500
    # A cell whose nucleus lies off its middle may have its center in the next one.
    assert agree / total > 0.97


def test_clustered_slides_keep_the_mixture():
    wanted = parse("[tumor]\nclustered = true\nfree_share = 0.0")
    drawn = plan.draw_plan(wanted, 3)
    mixture = (0.4, 0.2, 0.3, 0.1)
    shares = slides.lobule_mixtures(wanted, drawn, 3, mixture)
    areas = np.array([lobule.area_um2 for lobule in drawn.lobules])
    table = np.array(shares)
    np.testing.assert_allclose(table.sum(1), 1.0)
    np.testing.assert_allclose((areas @ table) / areas.sum(), mixture, atol=1e-9)
    # Most lobules hold one class alone.
    assert (table.max(1) > 0.999).mean() > 0.5


# --- patches --------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    spacing_um=st.sampled_from([0.25, 0.5, 0.9, 1.0, 1.3, 2.0]),
)
def test_patches_equal_the_slow_twin(seed, height, width, spacing_um):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 9, (height, width)).astype(np.uint8)
    got = truth.patch_table(SimpleNamespace(classes=classes), spacing_um)
    np.testing.assert_array_equal(got, phantom_patches.patch_table(classes, spacing_um))


def test_patch_rows_by_hand():
    """A tumor of 64 x 64 px whose left quarter is 2+, and a speck under a tenth."""
    classes = np.zeros((128, 128), np.uint8)
    classes[:64, :16], classes[:64, 16:64] = 3, 2
    classes[100:110, 70:80] = 8
    table = truth.patch_table(SimpleNamespace(classes=classes), 1.0)
    rows = truth.patch_csv(table, 1.0).decode().split("\r\n")
    assert rows[0].startswith("minx,miny,width,height,control,px_0,px_1+")
    assert rows[1:] == [
        "0,0,64,64,0,0,3072,1024,0,1+,1",
        "64,64,64,64,1,0,0,0,100,3+,0",
        "",
    ]


# --- artifacts ------------------------------------------------------------------------


def flat_slide(drawn: slides.Slide, text: str) -> slides.Slide:
    """`drawn` without noise, with the artifacts of a specification."""
    wanted = parse(SMALL + text)
    return replace(
        drawn,
        spec=wanted,
        artifacts=artifacts.plan_artifacts(wanted, drawn.plan, drawn.seed),
        look=replace(drawn.look, noise=0.0),
    )


def test_windows_do_not_show_in_the_picture(drawn):
    """However the slide is cut into windows, a pixel is the same."""
    slide = flat_slide(
        drawn,
        "[artifacts]\nfolds = 2\nbubbles = 2\ndust = 40\n"
        "[[artifacts.pen]]\nover = 'tissue'\n[[artifacts.blur]]\nsigma_um = 2.5\n",
    )
    camera = slides.Camera(slide)
    whole = camera.window(200, 150, 500, 400).astype(int)
    parts = [
        np.hstack([camera.window(x, y, 250, 200) for x in (200, 450)])
        for y in (150, 350)
    ]
    assert np.abs(whole - np.vstack(parts)).max() <= 1


@pytest.mark.parametrize("ink", sorted(artifacts.INKS))
def test_ink_on_glass_is_not_tissue(drawn, ink):
    slide = flat_slide(drawn, f"[[artifacts.pen]]\nink = '{ink}'\n")
    picture = slides.Camera(slide).window(0, 0, 1000, 700)
    clean = slides.Camera(flat_slide(drawn, "")).window(0, 0, 1000, 700)
    inked = (np.abs(picture.astype(int) - clean).max(-1) > 60).sum()
    assert inked > 20_000
    white = tuple(round(value) for value in drawn.look.white_rgb)
    with_ink = kernels.tissue_mask(picture, white_rgb=white).astype(bool)
    without = kernels.tissue_mask(clean, white_rgb=white).astype(bool)
    # The stroke's soft border may leave a few pixels.
    assert (with_ink & ~without).sum() < 0.02 * inked


def test_fold_doubles_the_stain():
    """By hand: amount 0.2 everywhere becomes 0.4 on the curve and stays beside it."""
    far = np.full((20, 20), 100.0, np.float32)
    far[:, 8:12] = 0.0
    fold = artifacts.Fold(30.0, far, (10.0, 0.0))
    art = artifacts.Artifacts((), (fold,), (), (), ())
    window = artifacts.Window.over(0, 0, 100, 100, 1.0)
    out = artifacts.double(np.full((4, 100, 100), 0.2, np.float32), art, window, 1.0)
    np.testing.assert_allclose(out[:, 50, 50], 0.4, rtol=1e-6)
    np.testing.assert_allclose(out[:, 50, 5], 0.2, rtol=1e-6)


def test_blur_stays_in_its_region_and_lowers_focus(drawn):
    text = "[[artifacts.blur]]\nsigma_um = 4\nregion_um = [0, 0, 400, 700]\n"
    sharp = slides.Camera(flat_slide(drawn, "")).window(0, 0, 900, 700)
    soft = slides.Camera(flat_slide(drawn, text)).window(0, 0, 900, 700)
    np.testing.assert_array_equal(sharp[:, 430:], soft[:, 430:])
    assert (sharp[:, :370] != soft[:, :370]).any()

    def focus(rgb: Any) -> Any:
        part = np.ascontiguousarray(rgb[130:514, 190:382])
        mask = np.ones(part.shape[:2], np.uint8)
        return np.median(kernels.focus(part, mask, patch_px=64, stride_px=64))

    assert focus(soft) < 50 < focus(sharp)


# --- the file's title -----------------------------------------------------------------


def test_title_is_in_the_file_and_cannot_forge_fields(tmp_path):
    openslide = pytest.importorskip("openslide")
    rgb = np.full((300, 300, 3), 200, np.uint8)
    path = tmp_path / "a.svs"
    _core.write_pyramid(path, rgb, spacing_um=1.0, aperio=True, title="Synthetic")
    with openslide.OpenSlide(path) as opened:
        assert opened.properties["aperio.Title"] == "Synthetic"
    for title in ("a|MPP = 9", "line\nbreak", "\u00e9", "x" * 257):
        with pytest.raises(ValueError, match="title"):
            _core.write_pyramid(path, rgb, spacing_um=1.0, aperio=True, title=title)
    with pytest.raises(ValueError, match="aperio"):
        _core.write_pyramid(path, rgb, spacing_um=1.0, title="x")
