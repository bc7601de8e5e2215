# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Page
from PIL import Image
from record_example import record, unscored

from her2fast.errors import REASON_CODES
from her2fast.guidelines import rule_sets
from her2fast.report import report_html, words
from her2fast.report.slide_map import MAX_MAP_BYTES


def page(made, class_map=None) -> Page:
    data = report_html(made, class_map)
    assert data == report_html(made, class_map)
    return Page(data)


def picture(width: int, height: int, noise: bool = False) -> Image.Image:
    pixels = np.full((height, width, 3), 200, np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    return Image.fromarray(pixels)


def embedded(got: Page) -> Image.Image:
    (image,) = got.all("image")
    head, _, data = image["href"].partition(",")
    assert head == "data:image/jpeg;base64"
    raw = base64.b64decode(data, validate=True)
    assert len(raw) <= MAX_MAP_BYTES
    shown = Image.open(io.BytesIO(raw))
    assert (image["width"], image["height"]) == tuple(map(str, shown.size))
    return shown


def test_what_a_pathologist_looks_for():
    text = page(record(), picture(20, 10)).text
    for words_of_it in (
        "S24-01234 HER2.svs",
        "HER2 score 2+",
        "HER2 equivocal",
        "In-situ hybridization decides.",
        "61.27 %",
        "3.267 mm²",
        "Review required",
        "Borderline.",
        "2+ and above",
        "10.68 %, 223,187 px (0.223 mm²) above the cut: passed",
        "0.72 %, 3,043,854 px (3.044 mm²) below the cut: not reached",
        "Tumor left out",
        "0.900 mm² (2.67 %)",
        "Region looked at 400.500 mm²",
        "Region the whole slide",
        "constrained-tiny, method constrained, stain h-dab, patches of 64 px, "
        "class scales 1 1.5",
        "name cpu, batch (classify 32)",
        "asco-cap-2018, floor 1 %",
        "1 µm/px, reading mode scaled",
        "out of focus 3.4 %",
        "The score becomes 1+ where 0.223 mm² (223,188 px) of the tumor is of another "
        "class; no smaller area can change it.",
        "Score 0 1+ 2+ 3+ Probability none 17.4 % 82.6 % none",
        "9.96 %, between 7.9 % and 12.5 %",
        "The tumor's 31 blocks of 0.96 mm were drawn again 1,000 times.",
        "decoded with a warning 2",
        "Research use only; trained on synthetic data. Not a medical device.",
        "0.2528 x 0.2528 µm, from: the scanner's metadata",
        "1 µm/px",
        "SHA-256 " + "ab" * 32,
        "Wolff et al., J Clin Oncol 2018",
        "her2fast 0.1.0, torch 2.13.0",
        "77aa" * 16,
    ):
        assert words_of_it in text, words_of_it


@pytest.mark.parametrize(
    ("class_px", "shown"),
    [
        ((9_004, 0, 996, 0), "9.96 %, 4 px below the cut: not reached"),
        # 41 px short of a tenth, which two decimals would call 10.00 %
        ((9_000_041, 0, 999_959, 0), "9.9996 %, 41 px below the cut: not reached"),
        ((9_000_003, 0, 1_000_000, 0), "9.999997 %, 0.3 px below the cut: not reached"),
        ((90, 0, 10, 0), "10.00 %, exactly on the cut: not reached"),
        ((89_999, 0, 10_001, 0), "10.001 %, 1 px above the cut: passed"),
    ],
)
def test_no_rounding_onto_a_cut(class_px, shown):
    text = page(record(class_px)).text
    assert f"2+ and above {shown}" in text


def test_gap_shows_its_alternative_beside_the_score():
    text = page(record((9_004, 0, 996, 0))).text
    assert "HER2 score 0 HER2 negative" in text
    assert "Review: 2+ is the alternative." in text
    assert "Guideline gap." in text
    assert "not assessable from areas" in text


@pytest.mark.parametrize(
    ("flip", "probability", "shown"),
    [
        (
            {"least_px": 1, "least_mm2": 1e-6, "to_score": "2+"},
            None,
            "less than 0.001 mm²",
        ),
        ({"least_px": 7, "to_score": "3+"}, None, "becomes 3+ where 7 px of"),
        (
            {"least_px": 7, "to_score": "4+"},
            [0.0004, 0.0, 0.9996, 0.0],
            "0.1 % none 99.9 %",
        ),
        (None, [0, 0, 1, 0], "none none all none"),
    ],
)
def test_how_sure_is_never_rounded_to_certain(flip, probability, shown):
    made = record(flip=flip, score_probability=probability)
    assert shown in page(made).text
    assert ("Probability" in page(made).text) == (probability is not None)


def test_how_sure_needs_a_score():
    nothing = dict.fromkeys(("flip", "score_probability", "intervals"))
    assert "How sure" not in page(record(**nothing)).text
    assert "How sure" not in page(record(status="failed", code="CRASH")).text
    only_areas = page(record(score=None, guideline=None)).text
    assert "between 7.9 % and 12.5 %" in only_areas
    assert "Probability" not in only_areas
    assert "The score becomes" not in only_areas


def test_calm_page():
    text = page(record((40, 30, 30, 0))).text
    assert "No flags" in text
    assert "Review" not in text
    only_ultralow = page(record((98, 2, 0, 0))).text
    assert "No flag asks for review" in only_ultralow
    assert "Some faint staining." in only_ultralow


def test_ish_decides_2_plus():
    made = record((40, 30, 30, 0))
    made["guideline"] |= {"binary": "negative", "three_way": "negative"}
    made["guideline"]["her2_view"] = "low"
    text = page(made).text
    assert "HER2 negative Decided by in-situ hybridization: negative. HER2-low" in text


def test_cuts_of_a_set_that_does_not_add_up():
    made = record((70, 10, 10, 10))
    made["guideline"]["margins"] = [
        {"cut": cut, "area": 10, "margin": 0, "passed": True}
        for cut in ("3+", "2+", "1+")
    ]
    text = page(made).text
    assert "and above 10" not in text
    assert text.count("exactly on the cut: passed") == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("indeterminate", "NO_TUMOR"),
        ("failed", "TRUNCATED"),
        ("refused", "NO_SPACING"),
        ("failed", "CRASH"),
    ],
)
def test_no_score_says_why(status, code):
    text = page(unscored(status, code, "tile 7 ends the file", "a.svs")).text
    assert "No score" in text
    assert "HER2 score" not in text
    assert words.STATUSES[status] in text
    assert f"{status}, {code}" in text
    assert "tile 7 ends the file" in text
    assert words.CODES.get(code, "") in text
    assert "Distance to the cuts" not in text


def test_no_areas_of_a_slide_that_must_not_be_read():
    got = page(unscored("refused", "WRONG_STAIN", "", "a.svs"), picture(40, 30))
    refused = got.text
    assert "The slide" in refused  # as it looks
    assert embedded(got).size == (40, 30)
    assert "Class map" not in refused
    assert "no staining" not in refused
    assert "No class areas to show." in refused
    assert "61.27 %" not in refused
    assert "Tumor left out" not in refused
    assert "61.27 %" in page(unscored("indeterminate", "NO_TUMOR", "", "a.svs")).text


def test_a_score_is_never_shown_without_the_status():
    text = page(unscored("failed", "CRASH", "", "a.svs") | {"score": "3+"}).text
    assert "HER2 score" not in text


def test_areas_without_a_guideline():
    made = record(score=None, guideline=None, class_names=["a", "b", "c", "d"])
    text = page(made).text
    assert "No guideline: areas only" in text
    assert "Distance" not in text


def test_page_needs_nothing_else_and_runs_nothing():
    got = page(record(), picture(20, 10))
    names = {tag for tag, _ in got.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "a"}
    for _, attrs in got.tags:
        for key, value in attrs.items():
            assert not key.startswith("on")
            if key in ("src", "href"):
                assert value.startswith("data:image/jpeg;base64,")
    data = report_html(record(), picture(20, 10))
    assert b"url(" not in data
    assert b"http:" not in data
    assert b"https:" not in data


NASTY = '"><script>alert(1)</script>{{ 7*7 }}\n' + os.fsdecode(b"\xff") + "é"


def test_foreign_text_stays_text():
    made = record(message=NASTY, warnings=[NASTY], intended_use=NASTY)
    made["slide"]["name"] = made["slide"]["spacing_source"] = NASTY
    made["models"][0]["name"] = NASTY
    made["review_flags"] = [NASTY]
    got = page(made)
    assert "script" not in {tag for tag, _ in got.tags}
    assert "{{ 7*7 }}" in got.text
    assert r"\xffé" in got.text


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        (
            "synthetic training data, research use only",
            "Synthetic training data, research use only. Not a medical device.",
        ),
        (None, "Research use only. Trained on synthetic data. Not a medical device."),
        (
            "Cells.",
            "Cells. Research use only. Trained on synthetic data. "
            "Not a medical device.",
        ),
    ],
)
def test_intended_use_is_always_whole(given_text, shown):
    assert page(record(intended_use=given_text)).text.count(shown) == 2


def test_picture_is_bounded():
    small = picture(300, 200)
    assert embedded(page(record(), small)).size == (300, 200)
    assert embedded(page(record(), picture(4000, 100))).size == (1600, 40)
    noisy = embedded(page(record(), picture(1500, 1500, noise=True)))
    assert 600 < noisy.size[0] == noisy.size[1] < 1500


def test_scale_bar_is_true():
    # 98,304 px of 0.2528 um are 24.85 mm: the bar of 5 mm is 20.12 % of the picture.
    data = report_html(record(), picture(400, 300)).decode()
    assert re.search(
        r'class="ruler" style="width: 20.120%"></div></div>\s+<p>5 mm</p>', data
    )


def test_what_spoils_a_score_stands_out():
    made = record()
    made["review_flags"] = ["OUT_OF_FOCUS"]
    made["tiles"]["corrupt"] = 3
    data = re.sub(r"\s+", " ", report_html(made).decode())
    assert 'Tissue out of focus</dt><dd class="bad">3.4 %</dd>' in data
    assert 'Tiles missing or damaged</dt><dd class="bad">5</dd>' in data
    assert "Tumor left out</dt><dd>2.67 %</dd>" in data


@pytest.mark.parametrize("key", sorted(record()))
@pytest.mark.parametrize("value", [None, "absent"])
def test_a_missing_field_is_left_out(key, value):
    made = record()
    if value == "absent":
        del made[key]
    else:
        made[key] = None
    text = page(made).text
    assert "None" not in text
    assert not re.search(r"\bnan\b", text)


@given(
    st.dictionaries(
        st.sampled_from(sorted(record())),
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.lists(st.integers() | st.none(), max_size=4)
        | st.dictionaries(st.sampled_from(["name", "total", "size_px"]), st.none()),
        max_size=6,
    )
)
def test_any_shape_makes_a_page(changes):
    Page(report_html(record() | changes))
    Page(report_html(changes))


def test_words_cover_what_exists():
    assert set(words.CODES) <= set(REASON_CODES)
    assert len(rule_sets()) == 5
    flags = "ULTRALOW GUIDELINE_GAP BORDERLINE HETEROGENEOUS UNUSUAL_PATTERN"
    flags += " CONTROL_SUSPECTED OUT_OF_FOCUS OUT_OF_DOMAIN NO_GLASS"
    assert set(words.FLAGS) == set(flags.split())
