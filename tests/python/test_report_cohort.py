# SPDX-License-Identifier: Apache-2.0
"""The cohort page: its order, its counts, its links, and what it lets no name do."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import packages
import pytest
import slides
from hypothesis import given
from hypothesis import strategies as st
from pages import Page
from record_example import record, unscored

from her2fast import cli
from her2fast.export.results_table import worklist
from her2fast.report import cohort_html


def named(made: dict, folder: str) -> dict:
    return {**made, "folder": folder}


def six() -> list[dict]:
    mixes = {"0": (95, 5, 0, 0), "1+": (80, 20, 0, 0), "2+": (60, 10, 30, 0)}
    mixes["3+"] = (10, 10, 20, 60)
    made = []
    for score, mix in mixes.items():
        one = named(record(mix), f"case {score}")
        one["slide"]["name"] = f"case {score}.svs"
        assert one["score"] == score
        made.append(one)
    made[0]["score_probability"] = None  # too few blocks
    little = unscored("indeterminate", "TOO_LITTLE_TUMOR", "0.02 mm2", "little.svs")
    refused = unscored("refused", "NO_SPACING", "give --mpp", "bare.svs")
    return [*made, named(little, "little"), named(refused, "bare")]


def body_rows(data: bytes) -> list[str]:
    table = data.decode().split("<tbody>")[1]
    return [re.sub(r"<[^>]*>|\s+", " ", row) for row in table.split("<tr ")[1:]]


def test_what_stands_on_the_page():
    data = cohort_html(six())
    text = Page(data).text
    for wanted in (
        "4 of 6 slides scored; 0 of them ask for review.",
        "Research use only; trained on synthetic data. Not a medical device.",
        "TOO_LITTLE_TUMOR",
        "Some faint staining",
        "0 10.00, 1+ 10.00, 2+ 20.00, 3+ 60.00 %",
        "score 2+ 60.0 % 10.0 % 30.0 % 0.0 %",
    ):
        assert wanted in text, wanted
    counts = re.findall(r'data-pick="score" data-value="([^"]*)"', data.decode())
    assert counts == ["0", "1+", "2+", "3+", "no score"]


def test_no_areas_of_a_slide_that_must_not_be_read():
    for status, shown in (("refused", False), ("failed", False), ("indeterminate", 1)):
        code = "NO_TUMOR" if shown else "CRASH"
        made = unscored(status, code, "", "a.svs")
        assert made["class_px"]
        data = cohort_html([made]).decode()
        assert ('class="mini"' in data, "2.67 %" in data) == (bool(shown),) * 2


def test_rows_stand_in_the_order_of_the_worklist():
    made = six()
    rows = body_rows(cohort_html(made))
    names = [item.record["slide"]["name"] for item in worklist(made)]
    assert len(rows) == len(names) == 6
    for row, name in zip(rows, names, strict=True):
        assert name in row


def test_the_order_of_records_does_not_show():
    made = six()
    twin = {**made[0], "folder": "a twin of one name and slide"}
    everything = [*made, twin]
    assert cohort_html(everything) == cohort_html(everything[::-1])


def test_links_find_the_reports():
    hostile = 'a "b" #1?&x=%41/..<é>'
    links = Page(cohort_html([named(record(), hostile)])).all("a")
    (href,) = [link["href"] for link in links]
    assert re.fullmatch(r"reports/[A-Za-z0-9%._~-]*\.html", href)
    assert unquote(href) == f"reports/{hostile}.html"
    assert Page(cohort_html([record()])).all("a") == []  # no folder, no link


def test_a_score_is_never_shown_without_the_status():
    lying = unscored("failed", "CRASH", "", "a.svs") | {"score": "3+"}
    (row,) = body_rows(cohort_html([lying]))
    assert "no score" in row
    assert re.search(
        r'data-value="3\+">\s*<strong>3\+</strong>.*>0</span>',
        (cohort_html([lying]).decode()),
    )
    assert "<svg" not in cohort_html([lying]).decode()


def test_only_its_own_script_may_run():
    data = cohort_html(six()).decode()
    (script,) = re.findall(r"<script>(.*?)</script>", data, re.DOTALL)
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Security-Policy" content="([^"]*)"', data)
    assert f"script-src 'sha256-{sha256}'" in policy
    assert policy.startswith("default-src 'none'")
    for outside in ("http:", "https:", "url(", "@import", "src=", "innerHTML", "eval("):
        assert outside not in data


NASTY = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7*7 }}{% for %}",
    "javascript:alert(1)",
    "</td></tr></table>",
    os.fsdecode(b"\xff\xfe"),
    "<!--",
]


@pytest.mark.parametrize("text", NASTY)
def test_no_name_becomes_markup(text):
    made = named(record(message=text, warnings=[text], intended_use=text), text)
    made["slide"]["name"] = text
    made["review_flags"] = [text]
    made["guideline"]["alternative"] = text
    bad = named(unscored("failed", "CRASH", text, text), text)
    bad["code"] = text
    got = Page(cohort_html([made, bad]))
    assert [tag for tag, _ in got.tags].count("script") == 1
    assert not {"img", "iframe", "object"} & {tag for tag, _ in got.tags}
    for _, attributes in got.tags:
        assert not any(key.startswith("on") for key in attributes)
        assert attributes.get("href", "reports/").startswith("reports/")
    if text.isascii() and "  " not in text:
        assert text in got.text


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*sorted(record()), "folder"]),
            st.none()
            | st.integers()
            | st.text(max_size=3)
            | st.lists(st.integers() | st.none() | st.text(max_size=2), max_size=4)
            | st.dictionaries(st.sampled_from(["name", "flags"]), st.none()),
            max_size=5,
        ),
        max_size=3,
    ),
    st.booleans(),
)
def test_any_shape_makes_a_page(changes, whole):
    made = [{**(record() if whole else {}), **change} for change in changes]
    Page(cohort_html(made))


def test_an_empty_folder_has_a_page():
    assert "0 of 0 slides scored" in Page(cohort_html([])).text


def many(count: int) -> list[dict]:
    rng = np.random.default_rng(7)
    made = []
    for i in range(count):
        mix = rng.dirichlet([2.0, 1.0, 0.6, 0.5])
        one = named(record(tuple(int(x) for x in mix * 3e7)), f"s{i}")
        one["slide"]["name"] = f"s{i}.svs"
        made.append(one)
    return made


def test_a_thousand_slides():
    made = many(1000)
    begin = time.process_time()
    data = cohort_html(made)
    assert time.process_time() - begin < 5  # half a second where it was written
    assert len(data) < 2_000_000
    assert len(body_rows(data)) == 1000


def test_columns_of_shares_add_up():
    """Every column of the plot is filled from 0 to 100, the highest class below."""
    data = cohort_html(many(50)).decode()
    for svg in re.findall(r"<svg .*?</svg>", data, re.DOTALL):
        outlines = [
            np.array([[float(v) for v in p.split(",")] for p in points.split()])
            for points in re.findall(r'points="([^"]*)"', svg)
        ]
        assert len(outlines) == 4
        n = len(outlines[0]) // 4
        below = np.full(n, 100.0)
        for outline in outlines:
            top, back = outline[: 2 * n : 2, 1], outline[2 * n :: 2, 1][::-1]
            np.testing.assert_allclose(back, below, atol=0.011)
            below = top
        np.testing.assert_allclose(below, 0.0, atol=0.011)


# --- through the command line ---------------------------------------------------------


def test_written_by_run_resume_and_rescore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "config"))
    method = packages.write_method(tmp_path / "method")
    assert cli.run(["models", "trust", str(method)]) == 0
    folder = tmp_path / "slides"
    folder.mkdir()
    slides.write_slide(folder / "a.svs")
    slides.write_slide(folder / "b.svs", slides.paint(stains=(0, 0, 0, 1)))
    out, page = tmp_path / "out", tmp_path / "out/cohort.html"
    words = ["score", "-i", str(folder), "-o", str(out), "-m", str(method)]
    assert cli.run(words) == 0
    first = page.read_bytes()
    text = Page(first).text
    assert "2 of 2 slides scored" in text
    for link in Page(first).all("a"):
        assert (out / unquote(link["href"])).is_file()
    page.unlink()
    assert cli.run(words) == 0
    assert page.read_bytes() == first
    assert cli.run(["rescore", str(out), "--guideline", "gastric-2016"]) == 0
    assert cli.run(["rescore", str(out), "--guideline", "asco-cap-2018"]) == 0
    assert page.read_bytes() == first
    # The colors are those of the reports.
    assert cli.run([*words, "--palette", "pham"]) == 0
    assert b"#009e73" in page.read_bytes()
    assert b"#5a5ab4" not in page.read_bytes()
    # What the tables say, and where: each row names its folder.
    record_now = json.loads((out / "results/a.json").read_bytes())
    assert "folder" not in record_now
    rows = (out / "results.csv").read_text().splitlines()
    assert rows[0].startswith("slide,folder,status")
    assert rows[1].startswith("a.svs,a,scored")
    assert (out / "worklist.csv").read_text().startswith("need,slide,folder,score")
