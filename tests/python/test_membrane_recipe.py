# SPDX-License-Identifier: Apache-2.0
"""The recipe of `membrane-tiny`: its division, its configuration, its bench."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast.errors import UsageError
from her2fast.membranes import NetworkFinder
from her2fast.methods.membrane_picture import find_in_picture, tiles_with_halo
from her2fast.models.membrane_package import load_membrane_package
from her2fast.models.trust import SHIPPED_DIR
from her2fast.phantom import render
from her2fast.phantom.fields import generator
from her2fast.phantom.ground import Tissue
from her2fast.training import membrane_recipe, membrane_scenes
from her2fast.training.augment import normalized
from her2fast.training.checkpoint import NETWORK, read_tensors, save_checkpoint
from her2fast.training.extract import IGNORED
from her2fast.training.membrane_cuts import choose_cuts, confusion_of, macro_f1
from her2fast.training.membrane_network import TinyMembraneNet
from her2fast.training.packages import MEAN, STD
from her2fast.training.run_folder import RunFolder

BENCH = Path(__file__).resolve().parents[2] / "bench" / "membrane_network" / "run.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_membrane_network", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scenes_of_every_kind_validate() -> None:
    count = membrane_recipe.PARTS[0].counts[membrane_scenes.USUAL]
    val = [n for n in range(count) if membrane_scenes.validates(n)]
    assert {n % membrane_scenes.ROUND for n in val} == set(range(6))
    assert 10 <= len(val) <= count // 5
    rng = generator(1, 0)
    for kind in range(4):
        assert membrane_scenes.mixture_of(rng, 6 + kind)[kind] == 1.0
    assert membrane_scenes.mixture_of(rng, 4) == (0.25,) * 4
    assert sum(membrane_scenes.mixture_of(rng, 5)) == pytest.approx(1.0)


def test_a_scene_is_its_pictures_and_their_truth() -> None:
    plan = membrane_scenes.Plan(side_px=256, tile_px=128, exposures=2)
    pictures = membrane_scenes.photograph(plan, 3)
    arrays = membrane_scenes.draw_scene(plan, 3)
    assert arrays["rgb"].shape == (8, 128, 128, 3)
    assert pictures[0].profile.hematoxylin != pictures[1].profile.hematoxylin
    assert pictures[0].spacing_um == pytest.approx(0.25, rel=0.07)
    for number, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        at = np.s_[128 * y : 128 * y + 128, 128 * x : 128 * x + 128]
        for exposure, picture in enumerate(pictures):
            tile = 4 * exposure + number
            np.testing.assert_array_equal(arrays["rgb"][tile], picture.rgb[at])
            benign = picture.tissue[at] == Tissue.BENIGN
            mask = arrays["mask"][tile]
            np.testing.assert_array_equal(mask == IGNORED, benign)
            np.testing.assert_array_equal(
                (mask == 1)[~benign], picture.membrane_mask[at][~benign]
            )
    assert (arrays["mask"] == 1).any()


def test_scenes_of_nuclear_dab_are_negatives() -> None:
    """Brown nuclei and no membrane in four of six; nothing of them is ignored."""
    rng = generator(1, 0)
    kinds = [membrane_scenes.nuclear_mixture(rng, n) for n in range(6)]
    assert kinds[:4] == [(1.0, 0.0, 0.0, 0.0)] * 4
    assert kinds[4] == (0.0, 1.0, 0.0, 0.0)
    assert sum(kinds[5]) == pytest.approx(1.0)
    plan = membrane_scenes.Plan(side_px=256, tile_px=128, exposures=1)
    brown = 0
    for number in range(4):
        for kind in (membrane_scenes.NUCLEAR, membrane_scenes.BLUE):
            picture = membrane_scenes.photograph(plan, number, kind)[0]
            arrays = membrane_scenes.draw_scene(plan, number, kind)
            # The darkest of class 0, as in any scene of it; nothing is left out.
            assert (arrays["mask"] == 1).mean() < 0.005
            assert not (arrays["mask"] == IGNORED).any()
            assert set(np.unique(picture.class_map)) <= {-1, 0}
            red, blue = (picture.rgb[..., k].astype(int) for k in (0, 2))
            brown += int((red > 1.3 * blue)[picture.tumor_mask].sum())
    assert brown > 500


def test_seeds_of_no_two_scenes_meet() -> None:
    """Those that train, in any part, and those on which the cuts are chosen."""
    counts = [(0, part.counts) for part in membrane_recipe.PARTS]
    counts.append((membrane_recipe.CUT_SCENE, membrane_recipe.CUT_SCENES))
    scenes = {
        (kind.name, first + n)
        for first, of_kind in counts
        for kind, count in of_kind.items()
        for n in range(count)
    }
    kinds = {
        kind.name: kind
        for kind in (
            membrane_scenes.USUAL,
            membrane_scenes.NUCLEAR,
            membrane_scenes.BLUE,
        )
    }
    assert len({kinds[name].seed(n) for name, n in scenes}) == len(scenes)


def test_a_sky_blue_laboratory_is_one() -> None:
    for seed in range(20):
        look = membrane_scenes.blue_laboratory(generator(seed, 0))
        red, green, blue = look.hematoxylin
        assert np.hypot(np.hypot(red, green), blue) == pytest.approx(1.0)
        assert red > 1.2 * green > 1.2 * 1.5 * blue
        assert look.white_rgb[0] - look.white_rgb[2] > 7.0


def test_scenes_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that was killed draws what is missing."""
    plan = membrane_scenes.Plan(side_px=64, tile_px=32, exposures=1)
    usual, nuclear = membrane_scenes.USUAL, membrane_scenes.NUCLEAR
    drawn: list[int] = []

    def pieces(counts: dict[membrane_scenes.Kind, int]) -> Any:
        return membrane_scenes.scene_pieces(tmp_path, counts, plan, say=lambda _: None)

    def draw(plan: Any, number: int, kind: membrane_scenes.Kind) -> Any:
        drawn.append(number if kind == usual else -1 - number)
        return {
            "rgb": np.full((4, 32, 32, 3), number, np.uint8),
            "mask": np.zeros((4, 32, 32), np.uint8),
        }

    monkeypatch.setattr(membrane_scenes, "draw_scene", draw)
    pieces({usual: 13})
    assert drawn == list(range(13))
    train, val = pieces({usual: 15})
    assert drawn == list(range(15))
    more, _ = pieces({usual: 15, nuclear: 2})
    assert drawn == [*range(15), -1, -2]
    assert len(more) == len(train) + 8
    assert (len(train), len(val)) == (56, 4)
    assert val.take("rgb", np.array([0]))[0, 0, 0, 0] == 12


def test_recipe_from_scenes_to_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few scenes and one step: the whole way, and what is refused."""
    monkeypatch.setenv("HER2FAST_CONFIG_DIR", str(tmp_path / "trust"))
    threads = torch.get_num_threads()
    out = tmp_path / "out"
    small = ["--out", str(out), "--scenes", "13", "--side-px", "256"]
    small += ["--epochs", "1", "--samples", "8", "--cut-scenes", "2"]
    try:
        membrane_recipe.main(small)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    package = load_membrane_package(out / "run" / "package")
    assert (package.name, package.tile_px, package.halo_px, package.spacing_um) == (
        "membrane-tiny",
        512,
        32,
        0.25,
    )
    assert package.synthetic
    facts = json.loads((out / "run" / "package" / "training.json").read_text())
    assert facts["cuts"]["low"] < facts["cut"] <= facts["cuts"]["high"]
    assert facts["part"] == "run"
    assert facts["scenes"] == {"scene": 13, "nuclear": 13, "blue": 13}
    for part, before in itertools.pairwise(reversed(membrane_recipe.PARTS)):
        begun = read_tensors(out / f"{part.name}-begin.safetensors")
        ended = load_file(out / before.name / "checkpoints" / "best.safetensors")
        for name, values in begun.items():
            assert torch.equal(values, ended[NETWORK + name])
    assert not (out / f"{membrane_recipe.PARTS[0].name}-begin.safetensors").exists()
    with pytest.raises(UsageError, match="one to validate on"):
        membrane_recipe.main(["--out", str(out), "--scenes", "12"])
    with pytest.raises(UsageError, match="multiple of 256"):
        membrane_recipe.main(["--out", str(out), "--side-px", "300"])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """What the recipe would train: the part's folder, its configuration, its work."""
    begun: list[tuple[str, Any, Any]] = []

    def run(
        stage: str, config: Any, text: str, folder: Path, work: Any, **_: Any
    ) -> dict[str, Any]:
        assert stage == "membrane"
        begun.append((folder.name, config, work))
        finish(folder)
        return {}

    monkeypatch.setattr("her2fast.training.stages.run_configured", run)
    return begun


def finish(folder: Path) -> None:
    """A part that was trained to its end, of weights that tell its name."""
    run = RunFolder(folder, "membrane")
    run.open({}, "")
    torch.manual_seed(len(folder.name))
    save_checkpoint(run.best, TinyMembraneNet(), {})
    run.finish({})
    run.close()


@pytest.mark.parametrize(
    ("begin", "before"), [("nuclear", "membranes"), ("run", "nuclear")]
)
def test_a_later_part_begins_with_the_one_before(
    tmp_path: Path, trained: list[tuple[str, Any, Any]], begin: str, before: str
) -> None:
    """Never with random weights."""
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--from", begin]
    with pytest.raises(UsageError, match=f"train it with --from {before}, or name"):
        membrane_recipe.main(arguments)
    assert trained == []
    finish(out / before)
    (out / before / "run.json").unlink()
    with pytest.raises(UsageError, match="has not finished"):
        membrane_recipe.main(arguments)
    finish(out / before)
    membrane_recipe.main(arguments)
    assert trained[0][0] == begin
    begun = read_tensors(Path(trained[0][1].model.weights))
    ended = load_file(out / before / "checkpoints" / "best.safetensors")
    for name, values in begun.items():
        assert torch.equal(values, ended[NETWORK + name])
    # A checkpoint that is named comes before what lies there.
    finish(tmp_path / "other-longer-name")
    named = tmp_path / "other-longer-name" / "checkpoints" / "best.safetensors"
    trained.clear()
    membrane_recipe.main([*arguments, "--weights", str(named)])
    begun = read_tensors(Path(trained[0][1].model.weights))
    other = load_file(named)
    assert all(torch.equal(v, other[NETWORK + k]) for k, v in begun.items())
    assert not all(torch.equal(v, ended[NETWORK + k]) for k, v in begun.items())


@pytest.mark.parametrize("option", ["--epochs", "--samples", "--cut-scenes"])
def test_none_of_it_is_refused(
    tmp_path: Path, trained: list[tuple[str, Any, Any]], option: str
) -> None:
    """A 0 is not the default."""
    for value in ("0", "-1"):
        with pytest.raises(
            UsageError, match=f"need {option} of 1 or more, got {value}"
        ):
            membrane_recipe.main(["--out", str(tmp_path), option, value])
    assert trained == []


def test_cuts_are_those_of_the_cells() -> None:
    """A network that knows the truth but writes faint membrane below its one cut."""
    pictures = [
        render(seed, (256, 256), spacing_um=0.25, mixture=mixture)
        for seed, mixture in ((50, (0, 1, 0, 0)), (57, (0, 0, 0, 1)))
    ]

    class Knows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for picture in pictures:
                wide = tiles_with_halo(picture.rgb, 256, 16)[0]
                own = normalized(torch.from_numpy(wide), MEAN, STD)
                if torch.equal(own, x):
                    faint = picture.class_map == 1
                    logit = np.where(faint, -1.5, 5.0)
                    logit = np.where(picture.membrane_mask, logit, -8.0)
                    logit = np.pad(logit, 16, constant_values=5.0)
                    plane = torch.from_numpy(logit.astype(np.float32))
                    return plane.expand(1, 2, -1, -1)
            raise AssertionError("no such picture")

    cuts, said = choose_cuts(
        Knows(), 0.0, pictures, statistics=(MEAN, STD), tile_px=256, halo_px=16
    )
    assert cuts.low == -2.0
    assert said["cells_macro_f1"] > said["one_cut_macro_f1"]
    truth = sum(confusion_of(one, one.membrane_mask) for one in pictures)
    assert said["confusion_true_by_called"] == truth.tolist()
    assert macro_f1(np.eye(4, dtype=np.int64)) == 1.0
    assert macro_f1(np.full((4, 4), 1, np.int64)) == 0.25


def called(
    package: Any, number: int, kind: membrane_scenes.Kind = membrane_scenes.USUAL
) -> Any:
    """A scene of no training, 1024 px, and what the package calls membrane there."""
    plan = membrane_scenes.Plan(side_px=1024, exposures=1)
    picture = membrane_scenes.photograph(plan, number, kind)[0]
    find = NetworkFinder(package)
    mask = find_in_picture(find, picture.rgb, tile_px=package.tile_px, batch_size=4)
    return picture, mask == 1


def after_cuts(kind: membrane_scenes.Kind) -> int:
    """The first scene of a round of six after those on which cuts are chosen."""
    count = membrane_recipe.CUT_SCENES[kind]
    return -(-(membrane_recipe.CUT_SCENE + count) // 6) * 6


def test_what_ships_is_known_small_and_finds_faint_membranes() -> None:
    """Two pictures of 0 and two of 1+, of laboratories and scenes of no training."""
    folder = SHIPPED_DIR / "membrane-tiny"
    package = load_membrane_package(folder)
    package.require_known()
    assert package.name == "membrane-tiny"
    assert package.synthetic
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 8 << 20
    first = after_cuts(membrane_scenes.USUAL)
    for kind in (0, 1):
        counts = np.zeros(4, np.int64)
        for number in (first + kind, first + kind + 6):
            counts += confusion_of(*called(package, number))[kind]
        assert counts.sum() > 30
        assert 2 * counts[kind] > counts.sum(), counts


def test_what_ships_leaves_brown_nuclei_alone() -> None:
    """Three pictures of a nuclear marker: little brown is membrane, few cells are."""
    package = load_membrane_package(SHIPPED_DIR / "membrane-tiny")
    first = after_cuts(membrane_scenes.NUCLEAR)
    cells = np.zeros(4, np.int64)
    brown_px = brown_called = 0
    for number in (first, first + 1, first + 2):
        picture, found = called(package, number, membrane_scenes.NUCLEAR)
        cells += confusion_of(picture, found)[0]
        brown = picture.rgb[..., 2] * 1.6 < picture.rgb[..., 0]
        brown_px += int(brown.sum())
        brown_called += int((found & brown).sum())
    assert brown_px > 2000
    assert brown_called < 0.25 * brown_px
    assert cells.sum() > 100
    assert cells[0] > 0.8 * cells.sum(), cells


def test_bench_counts(bench: ModuleType) -> None:
    found = np.array([[True, True, False, False]])
    truth = np.array([[True, False, True, False]])
    total = bench.counts(found, truth, np.ones_like(truth))
    assert total.tolist() == [1, 1, 1]
    assert bench.figures(total)["dice"] == 0.5
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[:4] = 200
    assert np.array_equal(bench.coarsened(rgb, 1), rgb)
    soft = bench.coarsened(rgb, 4)
    assert soft.shape == rgb.shape
    assert soft[0].max() == 200
    assert 0 < soft[3].max() < 200


def test_bench_counts_what_nuclear_dab_is_called(bench: ModuleType) -> None:
    """A ring of membrane round one nucleus: one cell of two, and half the brown."""
    rgb = np.full((128, 256, 3), 255, np.uint8)
    y, x = np.mgrid[:128, :256]
    found = np.zeros((128, 256), np.bool_)
    for middle in (64, 192):
        away = np.hypot(y - 64, x - middle)
        rgb[away < 14] = (110, 110, 190)
        rgb[(away >= 22) & (away < 26)] = (235, 200, 140)
        if middle == 64:
            found[(away >= 22) & (away < 26)] = True
    figures = bench.nuclear_figures([(rgb, found, None)])
    assert figures["called_share"] == pytest.approx(found.mean(), abs=1e-5)
    assert figures["brown_share"] == pytest.approx(2 * found.mean(), abs=1e-5)
    assert figures["brown_called_share"] == pytest.approx(0.5, abs=1e-4)
    assert figures["cells"] == 2
    assert figures["complete_cells_share"] == 0.5
    right = np.zeros_like(found)
    right[:, 128:] = True
    where = bench.nuclear_figures([(rgb, found, right)])
    assert where["cells"] == 1
    assert where["complete_cells_share"] == 0.0


def test_bench_puts_tiles_where_they_were(bench: ModuleType) -> None:
    class Dark:
        halo_px = 5

        def __call__(self, rgb: np.ndarray, places: list[tuple[int, int]]) -> Any:
            assert rgb.shape[1:] == (42, 42, 3)
            return (rgb[:, 5:-5, 5:-5, 0] < 128).astype(np.uint8)

    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (70, 100, 3), np.uint8)
    np.testing.assert_array_equal(bench.membranes(Dark(), 32, rgb), rgb[..., 0] < 128)
