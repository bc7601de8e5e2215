# SPDX-License-Identifier: Apache-2.0
"""Epithelium by superpixels: learned, packaged, mapped, and in a segmenter's place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import membrane_cases
import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from packages import edit_json
from PIL import Image
from slides import paint, write_slide
from training_cohort import config_text, write_manifest, write_mask

from her2fast.cli import cli
from her2fast.epithelium import (
    EpitheliumOptions,
    load_epithelium_package,
    run_epithelium,
)
from her2fast.errors import DeviceError, SlideError, UsageError
from her2fast.kernels import tissue_mask
from her2fast.kernels.epithelium import (
    superpixel_features,
    superpixel_roots,
    superpixels,
)
from her2fast.manifest import collect
from her2fast.membranes import score_membranes
from her2fast.methods.epithelium import CELL_PX, find_epithelium
from her2fast.models.package import VECTORS_FILE, load_package, load_tumor_package
from her2fast.models.runner import open_runner
from her2fast.models.superpixel_svm import Machine, SuperpixelRunner, read_machine
from her2fast.opened_slide import open_input
from her2fast.scoring import Scorer
from her2fast.training.stages import run_stage

Bytes = npt.NDArray[np.uint8]
SIDE_PX = 512


@pytest.fixture(autouse=True)
def _process(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A trust file of its own; torch's settings as they were."""
    trust = tmp_path_factory.getbasetemp() / "epithelium-trust"
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(trust))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def half_brown(seed: int) -> Bytes:
    """Grey-blue tissue on the left, brown on the right, glass round it."""
    return paint((SIDE_PX, SIDE_PX), (0, 3), seed=seed)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides; the brown half is drawn, on two as a mask, on two as GeoJSON."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "drawn").mkdir()
    rows = []
    for number in range(4):
        write_slide(folder / f"s{number}.svs", half_brown(number))
        if number % 2:
            box = [[256, 64], [448, 64], [448, 448], [256, 448], [256, 64]]
            feature = {
                "type": "Feature",
                "properties": {"classification": {"name": "Epithelium"}},
                "geometry": {"type": "Polygon", "coordinates": [box]},
            }
            text = json.dumps({"type": "FeatureCollection", "features": [feature]})
            (folder / "drawn" / f"s{number}.geojson").write_text(text)
        else:
            mask = np.zeros((SIDE_PX, SIDE_PX), np.bool_)
            mask[64:448, 256:448] = True
            write_mask(folder / "drawn" / f"s{number}.png", mask)
        part = "val" if number > 1 else "train"
        rows.append({"slide": f"s{number}.svs", "patient": f"p{number}", "split": part})
    return write_manifest(folder, rows)


def config_of(folder: Path, cohort: Path, **changes: Any) -> Path:
    path = folder / "epithelium.toml"
    tables = {
        "data": {
            "manifest": cohort,
            "cache": cohort.parent / "cache",
            "annotations": cohort.parent / "drawn",
        },
        "svm": {"cost": [1.0, 10.0], "max_superpixels": 200, "looks": 1},
        "package": {"name": "epithelium-test", "synthetic": True},
        **changes,
    }
    path.write_text(config_text(**tables))
    return path


@pytest.fixture(scope="module")
def trained(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        trust = tmp_path_factory.getbasetemp() / "epithelium-trust"
        patch.setenv("HER2FAST_CONFIG_DIR", str(trust))
        said: list[str] = []
        config = config_of(folder, cohort)
        run_stage("epithelium", config, folder / "run", say=said.append)
    assert any("vectors" in line for line in said)
    return folder / "run"


def test_a_stage_learns_and_says_what(trained: Path) -> None:
    facts = json.loads((trained / "run.json").read_text())
    assert facts["stage"] == "epithelium"
    assert facts["val_dice"] > 0.97
    package = load_epithelium_package(trained / "package")
    assert package.known
    assert package.sha256 == facts["sha256"]
    assert package.config.her2fast.synthetic
    assert (trained / "environment.json").is_file()


def test_the_same_machine_for_any_number_of_workers(
    trained: Path, cohort: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, cohort)
    changes = ["compute.workers=1"]
    run_stage("epithelium", config, tmp_path / "run", changes=changes, say=print)
    for name in (VECTORS_FILE, "config.json"):
        again = (tmp_path / "run" / "package" / name).read_bytes()
        assert again == (trained / "package" / name).read_bytes()


def test_slides_that_cannot_teach_are_refused(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    folder.mkdir()
    for number in range(4):
        write_mask(folder / f"s{number}.png", np.zeros((SIDE_PX, SIDE_PX), np.bool_))
    data = {"manifest": cohort, "cache": tmp_path / "cache", "annotations": folder}
    config = config_of(tmp_path, cohort, data=data)
    with pytest.raises(UsageError, match="no superpixel of the training slides is epi"):
        run_stage("epithelium", config, tmp_path / "run", say=print)
    bare = config_of(
        tmp_path, cohort, data={"manifest": cohort, "cache": tmp_path / "cache"}
    )
    with pytest.raises(UsageError, match="need annotations"):
        run_stage("epithelium", bare, tmp_path / "other", say=print)


# --- packages


def test_the_hash_is_checked_before_anything_is_parsed(
    trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "package"
    shutil.copytree(trained / "package", folder)
    file = folder / VECTORS_FILE
    file.write_bytes(b"no archive at all")
    with pytest.raises(SlideError) as caught:
        load_epithelium_package(folder)
    assert caught.value.code == "MODEL_HASH"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    edit_json(folder / "config.json", lambda c: c["her2fast"].update(sha256=digest))
    with pytest.raises(SlideError) as caught:
        load_epithelium_package(folder)
    assert caught.value.code == "MODEL_HASH"  # in no list
    package = load_epithelium_package(folder, allow_unknown_model=True)
    with pytest.raises(SlideError) as caught:
        open_runner(package)
    assert caught.value.code == "MODEL_SHAPE"


def test_a_machine_that_is_none_is_refused(trained: Path) -> None:
    package = load_epithelium_package(trained / "package")
    good = SuperpixelRunner(package).machine
    wrong = [
        Machine(good.rule, good.vectors[:, :10], good.coefficients),
        Machine(good.rule, good.vectors, good.coefficients[:-1]),
        Machine(good.rule, good.vectors.astype(np.int32), good.coefficients),
        Machine(good.rule, good.vectors[:0], good.coefficients[:0]),
        Machine(good.rule, good.vectors - np.int16(5), good.coefficients),
    ]
    for machine in wrong:
        with pytest.raises(SlideError) as caught:
            read_machine(machine.to_bytes(), good.rule, "file")
        assert caught.value.code == "MODEL_SHAPE"
    broken = Machine(good.rule, good.vectors, good.coefficients * np.nan)
    with pytest.raises(SlideError) as caught:
        read_machine(broken.to_bytes(), good.rule, "file")
    assert caught.value.code == "NON_FINITE"
    with pytest.raises(DeviceError, match="CPU alone"):
        SuperpixelRunner(package, "cuda:0")


def test_other_packages_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        load_epithelium_package(tmp_path)
    shutil.copytree(trained / "package", tmp_path / "package")
    edit_json(
        tmp_path / "package" / "config.json",
        lambda c: c["her2fast"].update(task="membrane"),
    )
    with pytest.raises(UsageError, match="segmenter of one class"):
        load_epithelium_package(tmp_path / "package")


# --- slides


class Picture:
    """Reads a picture in memory, beyond which is white."""

    def __init__(self, rgb: Bytes) -> None:
        self._rgb = np.pad(rgb, [(300, 700), (300, 700), (0, 0)], constant_values=255)

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        y, x = y_px + 300, x_px + 300
        return self._rgb[y : y + height_px, x : x + width_px].copy(), "ok"


@pytest.fixture(scope="module")
def machine(trained: Path) -> Machine:
    data = (trained / "package" / VECTORS_FILE).read_bytes()
    content = json.loads((trained / "package" / "config.json").read_text())
    from her2fast.models.config import ModelConfig

    rule = ModelConfig.model_validate(content).her2fast.superpixel_svm
    assert rule is not None
    return read_machine(data, rule, "file")


def test_a_slide_is_its_blocks(machine: Machine) -> None:
    rgb = paint((600, 330), (0, 3, 1), seed=9)
    found = find_epithelium(
        Picture(rgb), machine, size_px=(600, 330), spacing_um=1.0, workers=2
    )
    alone = find_epithelium(
        Picture(rgb), machine, size_px=(600, 330), spacing_um=1.0, workers=1
    )
    np.testing.assert_array_equal(found.probability, alone.probability)
    np.testing.assert_array_equal(found.inside, alone.inside)
    assert found.probability.shape == (-(-330 // CELL_PX), -(-600 // CELL_PX))
    # Built by hand: every block's superpixels, then tissue of the whole picture.
    wide = np.full((512, 768, 3), 255, np.uint8)
    wide[:330, :600] = rgb
    tissue = tissue_mask(np.pad(wide, [(16, 16)] * 2 + [(0, 0)], constant_values=255))
    tissue = tissue[16:-16, 16:-16] > 0
    tissue[330:], tissue[:, 600:] = False, False
    called = np.zeros(tissue.shape, bool)
    for y in range(0, 512, 256):
        for x in range(0, 768, 256):
            block = np.ascontiguousarray(wide[y : y + 256, x : x + 256])
            labels, count = superpixels(block, size_px=machine.rule.size_px)
            features = superpixel_roots(superpixel_features(block, labels, count))
            logits = machine.rule.slope * machine.decisions(features)
            called[y : y + 256, x : x + 256] = (logits + machine.rule.offset)[
                labels
            ] >= 0
    assert found.tissue_px == tissue.sum()
    assert found.epithelium_px == (called & tissue).sum() > 0
    shares = (called & tissue).reshape(64, 8, 96, 8).sum((1, 3))
    np.testing.assert_array_equal(found.inside, (shares >= 32)[:42, :75])


class Torn(Picture):
    """Has no sound pixels right of the first block."""

    def __init__(self, rgb: Bytes, status: str) -> None:
        super().__init__(rgb)
        self._status = status

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, spacing_um: float
    ) -> tuple[Bytes, str]:
        rgb, _ = super().read(x_px, y_px, width_px, height_px, spacing_um)
        return rgb, self._status if x_px > 0 else "ok"


@pytest.mark.parametrize(
    ("status", "kind"),
    [("missing", "missing"), ("corrupt", "corrupt"), ("warned", "corrupt")],
)
def test_a_block_that_cannot_be_read_is_counted(
    machine: Machine, status: str, kind: str
) -> None:
    rgb = paint((512, 256), (3,), seed=3)
    given = {"size_px": (512, 256), "spacing_um": 1.0, "workers": 1}
    whole = find_epithelium(Picture(rgb), machine, **given)  # type: ignore[arg-type]
    torn = find_epithelium(Torn(rgb, status), machine, **given)  # type: ignore[arg-type]
    assert whole.tiles == {"wanted": 2, "tissue": 2, "missing": 0, "corrupt": 0}
    counts = {"wanted": 2, "tissue": 1, "missing": 0, "corrupt": 0}
    assert torn.tiles == {**counts, kind: 1}
    side = 256 // CELL_PX
    np.testing.assert_array_equal(torn.inside[:, :side], whole.inside[:, :side])
    assert whole.inside[:, side:].any()
    assert not torn.inside[:, side:].any()
    assert torn.tissue_px < whole.tissue_px


def test_maps_and_outlines_of_a_slide(trained: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "new.svs", half_brown(77))
    package = trained / "package"
    out = tmp_path / "out"
    result = CliRunner().invoke(
        cli, ["epithelium", str(slide), "-m", str(package), "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    record = json.loads((out / "epithelium" / "new.json").read_text())
    areas = f"{record['epithelium_mm2']:.2f} of {record['tissue_mm2']:.2f} mm2"
    assert f"new.svs  measured  {areas}" in result.output
    assert record["tiles"] == {"wanted": 4, "tissue": 4, "missing": 0, "corrupt": 0}
    true_mm2 = 384 * 192 / 1e6
    assert abs(record["epithelium_mm2"] - true_mm2) < 0.1 * true_mm2
    chance = np.asarray(Image.open(out / "epithelium" / "new.png"))
    assert chance.shape == (64, 64)
    assert chance[10:54, 36:54].mean() > 200
    assert chance[10:54, 10:28].mean() < 50
    assert (chance[:7] == 0).all()
    import shapely

    text = (out / "epithelium" / "new.geojson").read_text()
    (feature,) = json.loads(text)["features"]
    assert feature["properties"]["classification"]["name"] == "Epithelium"
    outline = shapely.geometry.shape(feature["geometry"])
    assert outline.is_valid
    truth = shapely.box(256, 64, 448, 448)
    assert outline.intersection(truth).area > 0.95 * truth.area
    assert outline.area < 1.1 * truth.area


def test_the_session_finds_the_same_pixels(trained: Path, tmp_path: Path) -> None:
    """In a segmenter's place, where tiles have a halo."""
    slide = open_input(write_slide(tmp_path / "new.svs", half_brown(78)))
    package = load_tumor_package(trained / "package")
    shipped = load_package()
    assert package.classify == shipped.classify
    assert package.segment is not None
    measured = Scorer(package, workers=2).measure(slide)
    core = measured.core
    mask = core.tumor_mask(0, 0, SIDE_PX, SIDE_PX) > 0
    runner = SuperpixelRunner(load_epithelium_package(trained / "package"))
    found = find_epithelium(
        slide.reader(workers=1, reading="scaled"),
        runner.machine,
        size_px=slide.size_px,
        spacing_um=1.0,
        workers=1,
    )
    assert mask.sum() == found.epithelium_px > 0
    cells = mask.reshape(64, CELL_PX, 64, CELL_PX).sum((1, 3))
    np.testing.assert_array_equal(found.inside, 2 * cells >= CELL_PX**2)
    assert measured.provenance.models[0]["sha256"] == runner_sha(trained)


def runner_sha(trained: Path) -> str:
    return load_epithelium_package(trained / "package").sha256


def test_membranes_are_counted_in_the_epithelium(trained: Path, tmp_path: Path) -> None:
    case = membrane_cases.write_case(tmp_path)
    everything = tmp_path / "everything"
    shutil.copytree(trained / "package", everything)
    edit_json(
        everything / "config.json",
        lambda c: c["her2fast"]["superpixel_svm"].update(offset=1e4),
    )
    given = {"model": case / "brown", "allow_unknown_model": True}
    result = score_membranes(case / "lattice.svs", tumor_model=everything, **given)
    assert result.cells is not None, result.record["message"]
    assert len(result.cells.cells) > 100
    names = [model["sha256"] for model in result.record["models"]]
    assert runner_sha(trained) in names
    # Where nothing is epithelium there is no cell, and no score.
    edit_json(
        everything / "config.json",
        lambda c: c["her2fast"]["superpixel_svm"].update(offset=-1e4),
    )
    none = score_membranes(case / "lattice.svs", tumor_model=everything, **given)
    assert none.cells is None
    assert none.score is None
    assert none.record["code"] == "NO_TUMOR"


def test_a_bad_slide_is_a_record(trained: Path, tmp_path: Path) -> None:
    good = write_slide(tmp_path / "good.svs", half_brown(79))
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"no slide")
    out = tmp_path / "out"
    said: list[dict[str, Any]] = []
    options = EpitheliumOptions(out=str(out), model=str(trained / "package"))
    code = run_epithelium(options, collect([str(bad), str(good)]), said.append)
    assert code == 10
    assert [record["code"] for record in said] == ["UNSUPPORTED_FORMAT", None]
    assert not (out / "epithelium" / "bad.png").exists()
    assert (out / "epithelium" / "good.png").is_file()
    record = json.loads((out / "epithelium" / "bad.json").read_text())
    assert record["status"] == "refused"
