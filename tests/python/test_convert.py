# SPDX-License-Identifier: Apache-2.0
"""Plain images to slides: what is refused, and what comes out is scored."""

from __future__ import annotations

from pathlib import Path

import packages
import pytest
import slides
from PIL import Image

import her2fast
from her2fast import cli


def test_convert_and_score(tmp_path: Path) -> None:
    Image.fromarray(slides.paint()).save(tmp_path / "a.png")
    words = ["convert", str(tmp_path / "a.png"), str(tmp_path / "a.tiff")]
    assert cli.run(words) == 64  # no --mpp: never guessed
    assert cli.run([*words, "--mpp", "1.0"]) == 0
    assert cli.run([*words, "--mpp", "1.0"]) == 64  # it exists
    method = packages.write_method(tmp_path / "m")
    path = tmp_path / "a.tiff"
    result = her2fast.score(path, model=method, allow_unknown_model=True)
    assert (result.status, result.score) == ("scored", "3+")


@pytest.mark.parametrize(
    ("mode", "name", "code"),
    [
        ("RGBA", "a.png", "UNSUPPORTED_PIXELS"),
        ("L", "a.png", "UNSUPPORTED_PIXELS"),
        ("I;16", "a.png", "UNSUPPORTED_PIXELS"),
        ("P", "a.png", "UNSUPPORTED_PIXELS"),
        ("CMYK", "a.jpg", "UNSUPPORTED_PIXELS"),
    ],
)
def test_convert_refuses(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    name: str,
    code: str,
) -> None:
    Image.new(mode, (64, 64)).save(tmp_path / name)
    words = ["convert", str(tmp_path / name), str(tmp_path / "b.tiff"), "--mpp", "0.5"]
    assert cli.run(words) == 74
    assert code in capsys.readouterr().err
    assert not (tmp_path / "b.tiff").exists()


def test_convert_of_damaged_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(slides.paint()).save(image)
    data = image.read_bytes()
    words = ["convert", str(image), str(tmp_path / "b.tiff"), "--mpp", "0.5"]
    for broken, codes in (
        (data[: len(data) // 2], ["TRUNCATED"]),
        (b"", ["UNSUPPORTED_FORMAT"]),
        (b"no image", ["UNSUPPORTED_FORMAT"]),
        (data[:40] + b"\0" * 40 + data[80:], ["UNSUPPORTED_FORMAT", "BAD_HEADER"]),
    ):
        image.write_bytes(broken)
        assert cli.run(words) == 74
        error = capsys.readouterr().err
        assert any(code in error for code in codes), error
        assert not (tmp_path / "b.tiff").exists()


def test_convert_has_a_limit(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from her2fast import convert

    monkeypatch.setattr(convert, "MAX_PIXELS", 1000)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    words = ["convert", str(tmp_path / "a.png"), str(tmp_path / "b.tiff")]
    assert cli.run([*words, "--mpp", "0.5"]) == 74
    assert "LIMIT_EXCEEDED" in capsys.readouterr().err
