# SPDX-License-Identifier: Apache-2.0
"""`her2fast epithelium` in a results folder: damage, names, and what a rerun leaves."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from packages import edit_json
from slides import paint, write_slide

from her2fast import epithelium
from her2fast.epithelium import EpitheliumOptions, run_epithelium
from her2fast.export import atomic
from her2fast.kernels.epithelium import SUPERPIXEL_FEATURES
from her2fast.manifest import collect
from her2fast.methods.epithelium import find_epithelium
from her2fast.models.config import SuperpixelSvm
from her2fast.models.superpixel_svm import Machine
from her2fast.store import ResultsFolder
from her2fast.training.config import EpitheliumConfig
from her2fast.training.epithelium import write_epithelium

Bytes = npt.NDArray[np.uint8]
RULE = SuperpixelSvm(
    size_px=16,
    compactness=10.0,
    iterations=3,
    gamma=1e-6,
    intercept=0.5,
    slope=1.0,
    offset=0.0,
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls all tissue epithelium: its one vector counts for less than the rest."""
    folder = tmp_path_factory.mktemp("model") / "package"
    vectors = np.zeros((1, SUPERPIXEL_FEATURES), np.int16)
    config = EpitheliumConfig.model_validate(
        {
            "data": {"manifest": "none", "cache": "none", "annotations": "none"},
            "package": {"name": "everything", "synthetic": True},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        trust = tmp_path_factory.getbasetemp() / "folder-trust"
        patch.setenv("HER2FAST_CONFIG_DIR", str(trust))
        write_epithelium(folder, Machine(RULE, vectors, np.array([0.1])), config, {})
    return folder


def run(package: Path, out: Path, *slides: Path) -> tuple[int, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    options = EpitheliumOptions(
        out=str(out), model=str(package), allow_unknown_model=True
    )
    entries = collect([str(slide) for slide in slides])
    return run_epithelium(options, entries, said.append), said


def write(folder: Path, seed: int, size: tuple[int, int] = (256, 256)) -> Path:
    folder.mkdir(exist_ok=True)
    return write_slide(folder / "case.svs", paint(size, (3,), seed=seed))


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted((out / "epithelium").iterdir())
    }


class Damaged:
    """A reader whose second block is not sound."""

    def __init__(self, reader: Any, status: str) -> None:
        self._reader, self._status = reader, status

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        rgb, status = self._reader.read(x_px, y_px, width_px, height_px, spacing_um)
        return rgb, self._status if x_px > 0 else status


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("warned", "CORRUPT_TILES"),
        ("corrupt", "CORRUPT_TILES"),
        ("missing", "MISSING_TILES"),
    ],
)
def test_damage_above_the_limit_ends_a_slide(
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    code: str,
) -> None:
    slide, out = write(tmp_path / "a", 1, (512, 256)), tmp_path / "out"
    assert run(package, out, slide)[0] == 0
    assert set(files_of(out)) == {"case.png", "case.geojson", "case.json"}
    monkeypatch.setattr(
        epithelium,
        "find_epithelium",
        lambda reader, *args, **kw: find_epithelium(
            Damaged(reader, status), *args, **kw
        ),
    )
    exit_code, (record,) = run(package, out, slide)
    assert exit_code == 0  # as of `score`: an answer, though none about the epithelium
    assert (record["status"], record["code"]) == ("indeterminate", code)
    assert "1 of 2 blocks" in record["message"]
    kind = "missing" if status == "missing" else "corrupt"
    counts = {"wanted": 2, "tissue": 1, "missing": 0, "corrupt": 0}
    assert record["tiles"] == {**counts, kind: 1}
    assert "epithelium_mm2" not in record
    # The maps of the sound run would pass for this one's.
    assert set(files_of(out)) == {"case.json"}
    assert json.loads(files_of(out)["case.json"]) == record


def test_glass_does_not_hide_damage(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One damaged block of 100 is 1 % of all, but half of what matters."""
    rgb = np.full((256 * 10, 256 * 10, 3), 250, np.uint8)
    rgb[:256, :256] = paint((256, 256), (3,), seed=4)
    slide = write_slide(tmp_path / "case.svs", rgb)

    class OneDamaged(Damaged):
        def read(self, *place: Any) -> tuple[Bytes, str]:
            rgb, status = self._reader.read(*place)
            return rgb, "warned" if place[0] > 2048 and place[1] > 2048 else status

    monkeypatch.setattr(
        epithelium,
        "find_epithelium",
        lambda reader, *args, **kw: find_epithelium(
            OneDamaged(reader, ""), *args, **kw
        ),
    )
    _, (record,) = run(package, tmp_path / "out", slide)
    assert record["tiles"] == {"wanted": 100, "tissue": 1, "missing": 0, "corrupt": 1}
    assert record["code"] == "CORRUPT_TILES"


def test_another_slide_of_the_same_name_keeps_the_first(
    package: Path, tmp_path: Path
) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    out = tmp_path / "out"
    assert run(package, out, first)[0] == 0
    before = files_of(out)
    assert run(package, out, second)[0] == 0
    after = files_of(out)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert run(package, out, first)[0] == 0
    assert files_of(out) == after  # and each keeps its name


def test_a_rerun_that_cannot_write_leaves_the_result(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    out = tmp_path / "out"
    assert run(package, out, first)[0] == 0
    before = files_of(out)
    write(tmp_path / "a", 3)  # another picture: another result
    first_write = atomic._write

    def full(path: Path, chunks: Any) -> int:
        data = b"".join(chunks)
        if b'"case.svs"' in data:  # the records, when the maps are written already
            raise OSError(errno.ENOSPC, "no space left")
        return first_write(path, [data])

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", full)
        exit_code, said = run(package, out, first, second)
    assert exit_code == 20
    assert [record["code"] for record in said] == ["DISK_FULL", "DISK_FULL"]
    assert all("epithelium_mm2" not in record for record in said)
    assert files_of(out) == before
    assert run(package, out, first)[0] == 0
    assert files_of(out)["case.png"] != b""
    assert files_of(out)["case.json"] != before["case.json"]


def test_a_slide_that_another_process_writes_is_left_alone(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, out = write(tmp_path / "a", 1), tmp_path / "out"
    assert run(package, out, slide)[0] == 0
    before = files_of(out)
    monkeypatch.setattr("her2fast.store.LOCK_WAIT_S", 0.0)
    with ResultsFolder(out).lock("case"):
        exit_code, (record,) = run(package, out, slide)
    assert exit_code == 20
    assert record["code"] == "OUTPUT_BUSY"
    assert files_of(out) == before


def test_values_that_are_no_numbers_fail_the_slide(
    package: Path, tmp_path: Path
) -> None:
    """Beyond what the type of a logit holds."""
    steep = tmp_path / "steep"
    shutil.copytree(package, steep)
    edit_json(
        steep / "config.json",
        lambda c: c["her2fast"]["superpixel_svm"].update(intercept=1e300),
    )
    _, (record,) = run(steep, tmp_path / "out", write(tmp_path / "a", 1))
    assert (record["status"], record["code"]) == ("failed", "NON_FINITE")
