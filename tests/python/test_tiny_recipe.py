# SPDX-License-Identifier: Apache-2.0
"""The recipe of the shipped package: a few steps of it, and what it shipped."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

import her2fast
from her2fast.errors import UsageError
from her2fast.models.config import MethodConfig, ModelConfig
from her2fast.training import (
    coding,
    networks,
    packages,
    phantom_data,
    restart,
    tiny_evaluation,
    tiny_package,
    tiny_recipe,
)

MODELS = Path(her2fast.__file__).parent / "data" / "models"
SHIPPED = MODELS / "constrained-tiny"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures():
    return phantom_data.make_pictures(2, 224, 2, empty_share=0.0)


def make_package(pictures, out):
    segmenter, trained, loss = tiny_recipe.train_networks(
        pictures, seed=3, segment_steps=3, epochs=(1, 1), samples=64
    )
    assert np.isfinite(loss)
    judged = tiny_recipe.judge_domain(trained.network, pictures, pictures, seed=3)
    return tiny_package.write_package(out, segmenter, judged, {"seed": 3})


def weights(file):
    """Every number in a TorchScript archive; its code is numbered per process."""
    with zipfile.ZipFile(file) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith("archive/constants/")
        }


def test_a_few_steps_make_a_package_twice_the_same(pictures, tmp_path):
    digests = make_package(pictures, tmp_path / "one")
    make_package(pictures, tmp_path / "two")
    for name, shape in (("segment", (1, 320, 320)), ("classify", (6,))):
        folder = tmp_path / "one" / name
        again = tmp_path / "two" / name / "torchscript_model.pt"
        assert len(weights(again)) > 10
        assert weights(folder / "torchscript_model.pt") == weights(again)
        content = (folder / "torchscript_model.pt").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digests[name]
        assert str(Path.cwd()).encode() not in content  # no path of this machine
        config = ModelConfig.model_validate_json((folder / "config.json").read_text())
        assert config.her2fast.task == name
        assert config.her2fast.sha256 == digests[name]
        assert config.normalization() == (packages.MEAN, packages.STD)
        model = tiny_evaluation.load_model(folder)
        side = config.patch_size_pixels
        with torch.inference_mode():
            assert model(torch.zeros(3, 3, side, side)).shape == (3, *shape)
    method = MethodConfig.model_validate_json(
        (tmp_path / "one" / "method.json").read_text()
    )
    assert method.stain == "h-dab"
    assert method.domain is not None
    assert set(method.domain.cuts) == {"color", "feature"}
    assert method.domain.statistics["patches"] == 48 * tiny_recipe.DOMAIN_STEPS
    assert method.synthetic


def test_a_package_is_trained_further(pictures, tmp_path, monkeypatch):
    """Its networks come out of TorchScript, and what is trained already is kept."""
    make_package(pictures, tmp_path / "one")
    segmenter = restart.segmenter_of(tmp_path / "one")
    classifier = restart.classifier_of(tmp_path / "one")
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        for name, network in (("segment", segmenter), ("classify", classifier)):
            script = tiny_evaluation.load_model(tmp_path / "one" / name)
            side = 320 if name == "segment" else 64
            wide = torch.nn.functional.interpolate(x, size=(side, side))
            made = network(wide)
            torch.testing.assert_close(
                script(wide)[:, : made.shape[1]], made, atol=1e-4, rtol=1e-4
            )
    further = {
        "seed": 3,
        "segment_steps": 2,
        "epochs": (1, 0),
        "samples": 64,
        "runs": tmp_path / "runs",
        "start": tmp_path / "one",
        "coded": True,
    }
    moved, trained, loss = tiny_recipe.train_networks(pictures, **further)
    assert set(trained.facts["best_epochs"]) == {"pretrain"}
    steps = [
        float((after - before).detach().abs().max())
        for network, start in ((moved, segmenter), (trained.network, classifier))
        for after, before in zip(network.parameters(), start.parameters(), strict=True)
    ]
    assert 0.0 < max(steps) < 0.2  # moved, not made anew

    def never(*_):
        raise AssertionError("trained twice")

    monkeypatch.setattr(tiny_recipe, "_train_segmenter", never)
    again, twice, same = tiny_recipe.train_networks(pictures, **further)
    assert same == loss
    for network, other in ((moved, again), (trained.network, twice.network)):
        for one, two in zip(network.parameters(), other.parameters(), strict=True):
            assert torch.equal(one, two)

    # Nothing of other pictures, another start, raw pictures or another rate.
    brighter = phantom_data.Pictures(255 - pictures.rgb, pictures.class_map)
    other = {**further, "start": None}
    for changed, of, name in (
        (further, brighter, "pictures"),
        (other, pictures, "start"),
        (other, pictures, "segmenter_rate"),
        ({**further, "coded": False}, pictures, "coded"),
    ):
        with pytest.raises(UsageError, match=rf"made with .*{name}=.*another --runs"):
            tiny_recipe.train_networks(of, **changed)
    (tmp_path / "runs" / tiny_recipe.MADE_OF).unlink()
    with pytest.raises(UsageError, match="start=unknown"):
        tiny_recipe.train_networks(pictures, **further)

    judged = tiny_recipe.judge_domain(
        trained.network, pictures, pictures, seed=3, coding=coding.SCANNERS
    )
    tiny_package.write_package(tmp_path / "two", moved, judged, {"seed": 3})
    start = tmp_path / "one"
    tiny_package.write_package(
        tmp_path / "three", None, judged, {"seed": 3}, start=start
    )
    tiny_package.write_package(tmp_path / "four", moved, None, {"seed": 3}, start=start)
    for name, kept, other in (
        ("segment", "three", "four"),
        ("classify", "four", "three"),
    ):
        for file in ("config.json", "torchscript_model.pt"):
            content = (start / name / file).read_bytes()
            assert (tmp_path / kept / name / file).read_bytes() == content
            assert (tmp_path / other / name / file).read_bytes() != content
    limits = [
        json.loads((tmp_path / name / "method.json").read_text())["domain"]
        for name in ("one", "three", "four")
    ]
    assert limits[0] == limits[2] != limits[1]
    with pytest.raises(UsageError, match="segment: need steps or epochs"):
        tiny_package.write_package(tmp_path / "five", None, judged, {"seed": 3})


@pytest.mark.parametrize(
    "change",
    [
        {"raw": True},
        {"finer": True},
        {"crowded": 0.5},
        {"count": 2},
        {"size": 96},
        {"exposures": 2},
    ],
)
def test_kept_pictures_are_those_that_are_asked_for(tmp_path, monkeypatch, change):
    path = tmp_path / "pictures"  # without a suffix, too
    asked = {"count": 1, "size": 64, "exposures": 1, "processes": 1, "raw": False}
    made = phantom_data.cached_pictures(path, **asked)

    def never(*_, **__):
        raise AssertionError("drawn twice")

    with monkeypatch.context() as patched:
        patched.setattr(phantom_data, "make_pictures", never)
        again = phantom_data.cached_pictures(path, **{**asked, "processes": 2})
    assert np.array_equal(again.rgb, made.rgb)
    assert np.array_equal(again.class_map, made.class_map)
    with pytest.raises(UsageError, match="name another --cache, or remove it"):
        phantom_data.cached_pictures(path, **{**asked, **change})
    np.savez(tmp_path / "old.npz", rgb=made.rgb, class_map=made.class_map)
    with pytest.raises(UsageError, match="raw=unknown for False"):
        phantom_data.cached_pictures(tmp_path / "old.npz", **asked)


def test_kept_pictures_have_their_finer_ones(tmp_path):
    made, again = (
        phantom_data.cached_pictures(tmp_path / "fine", 1, 64, 1, 1, finer=True)
        for _ in range(2)
    )
    assert np.array_equal(again.finer, made.finer)
    assert np.array_equal(again.rgb, made.rgb)


def test_constrained_training_counts_no_agreement(pictures, tmp_path):
    """What its configuration says is what it does."""
    tiny_recipe.train_networks(
        pictures,
        seed=3,
        segment_steps=0,
        epochs=(1, 1),
        samples=64,
        runs=tmp_path,
        coded=True,
    )
    counted = {
        stage: json.loads((tmp_path / stage / "config.json").read_text())["augment"]
        for stage in ("pretrain", "constrained")
    }
    assert counted["pretrain"].pop("jpeg_agreement") == 12.0
    assert counted["constrained"].pop("jpeg_agreement") == 0.0
    assert counted["pretrain"] == counted["constrained"]


def test_two_codings_of_a_crop_are_told_apart_by_pixel(pictures):
    crops = phantom_data.crop_batches(pictures, 4, 192, seed=1)
    rgb, truth = next(tiny_recipe._coded_twice(crops, 5))
    assert rgb.shape == (8, 192, 192, 3)
    assert torch.equal(truth[:4], truth[4:])
    assert not torch.equal(rgb[:4], rgb[4:])
    plain, _ = next(phantom_data.crop_batches(pictures, 4, 192, seed=1))
    for half in rgb.chunk(2):  # the same crops but for what JPEG does
        assert float((half.float() - plain.float()).abs().mean()) < 8

    def loss(agreement):
        torch.manual_seed(0)
        network, batches = networks.TinyUNet(), iter([(rgb, truth)])
        return tiny_recipe._train_segmenter(network, batches, 1, 1e-3, agreement)

    counted = [loss(weight) - loss(0.0) for weight in (3.0, 6.0)]
    assert counted[0] > 0.0
    assert counted[1] == pytest.approx(2.0 * counted[0], rel=0.01)

    logits = torch.tensor([0.0, 2.0, 1.0, 2.0]).reshape(2, 1, 1, 2)
    # Shares .5 and .731 of the first pixel, by logits 0 and 1; equal ones of the other.
    wanted = 0.5 * (1 / (1 + np.exp(-1.0)) - 0.5) * (1.0 - 0.0) / 2
    assert float(tiny_recipe._disagreement(logits)) == pytest.approx(wanted, abs=1e-6)


def test_the_command_trains_one_network_and_keeps_the_other(tmp_path, monkeypatch):
    asked = []
    cached = tiny_recipe.cached_pictures

    def drawn(*arguments, **settings):
        asked.append((settings["finer"], settings["crowded"]))
        return cached(*arguments, **settings)

    monkeypatch.setattr(tiny_recipe, "cached_pictures", drawn)

    def run(out, *options):
        small = "--scenes 2 --size-px 224 --epoch-patches 64 --domain-scenes 2"
        small += " --test-scenes 1 --processes 1 --constrained-epochs 0 --coded"
        tiny_recipe.main(["--out", str(tmp_path / out), *small.split(), *options])
        return json.loads((tmp_path / out / "training.json").read_text())

    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        both = ["--segment-steps", "2", "--pretrain-epochs", "1"]
        made = run("one", *both, "--finer", "--crowded", "0.5")
        start = ["--start", str(tmp_path / "one")]
        more = run("two", *start, "--segment-steps", "2", "--pretrain-epochs", "0")
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert made["laboratory"] == "any_laboratory"
    assert asked == [(True, 0.5), (False, 0.0)]
    assert asked == [(one["finer"], one["crowded"]) for one in (made, more)]
    assert more["started_from"]["training"] == made
    assert more["classifier"] is None
    before = more["started_from"]["sha256"]
    after = tiny_package.model_hashes(tmp_path / "two")
    assert before["classify"] == after["classify"]
    assert before["segment"] != after["segment"]
    methods = [
        (tmp_path / name / "method.json").read_bytes() for name in ("one", "two")
    ]
    assert methods[0] == methods[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--segment-steps 0", "need --start for a network"),
        ("--pretrain-epochs 0", "need --start for a network"),
        ("--finer", "need --coded with --finer"),
        ("--crowded 2", "need 0 <= --crowded <= 1, got 2.0"),
        ("--start x --pretrain-epochs 0", "with --constrained-epochs, or 0 of both"),
    ],
)
def test_a_network_that_is_not_trained_comes_from_somewhere(options, words, capsys):
    with pytest.raises(SystemExit):
        tiny_recipe.main(["--out", "nowhere", *options.split()])
    assert words in capsys.readouterr().err


def test_another_package_is_not_trained_further(pictures, tmp_path):
    make_package(pictures, tmp_path / "one")
    script = tmp_path / "one" / "classify" / "torchscript_model.pt"
    script.write_bytes(
        (tmp_path / "one" / "segment" / "torchscript_model.pt").read_bytes()
    )
    with pytest.raises(ValueError, match="one linear layer, got 0"):
        restart.classifier_of(tmp_path / "one")


def test_compressing_is_measured(pictures):
    """Models that answer one thing alone are not moved by any file."""

    class Tumor(torch.nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 1, *x.shape[2:])

    class Bright(torch.nn.Module):
        """1+ where the mean is above a cut that compression does not move."""

        def forward(self, x):
            high = (x.mean((1, 2, 3)) > 1e9).float()
            return torch.stack([1.0 - high, high, 0 * high, 0 * high], 1)

    still = tiny_evaluation.evaluate_coding(Tumor(), Bright(), count=1, size_px=128)
    assert set(still) == {name for name, *_ in tiny_evaluation.CODINGS}
    for row in still.values():
        assert row["phantoms"] == 2
        assert row["worst_points"] == row["patches_changed"] == row["tumor_change"] == 0

    class Fine(Bright):
        """Reads the finest differences of color: what 4:2:0 takes away."""

        def forward(self, x):
            apart = x[:, 0] - x[:, 2]
            fine = (apart[:, :, 1:] - apart[:, :, :-1]).abs().mean((1, 2))
            # Between the raw patches' 0.13 to 0.22 and 4:2:0's 0.04 to 0.10.
            return torch.stack([fine * 0 + 0.115, fine, 0 * fine, 0 * fine], 1)

    moved = tiny_evaluation.evaluate_coding(Tumor(), Fine(), count=1, size_px=128)
    assert moved["420_q70"]["pooled_points"] == 100.0
    assert moved["420_q70"]["patches_changed"] == 1.0


def test_folding_keeps_the_answer_and_forgets_the_batch():
    torch.manual_seed(0)
    network = networks.TinyClassifier()
    images = torch.randn(4, 3, 64, 64)
    network.train()
    network(images)  # moves the running statistics off their start
    with torch.inference_mode():
        before = network.eval()(images)
        networks.fold_norms(network)
        after = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after, alone, atol=1e-5, rtol=1e-5)
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_patch_areas_count_every_pixel():
    rng = np.random.default_rng(0)
    kinds = rng.integers(-1, 4, (37, 50)).astype(np.int8)
    areas = phantom_data.patch_areas(kinds, 8, 5)
    assert areas.shape == (6, 9, 4)
    for row, column in ((0, 0), (5, 8), (3, 4)):
        block = kinds[row * 5 : row * 5 + 8, column * 5 : column * 5 + 8]
        wanted = [int((block == kind).sum()) for kind in range(4)]
        assert areas[row, column].tolist() == wanted


def test_batches_hold_what_they_say(pictures):
    rgb, shares = next(phantom_data.patch_batches(pictures, 8, 64, seed=1))
    assert rgb.shape == (8, 64, 64, 3)
    assert rgb.dtype == torch.uint8
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    again = next(phantom_data.patch_batches(pictures, 8, 64, seed=1))[0]
    assert torch.equal(rgb, again)
    _, truth = next(phantom_data.crop_batches(pictures, 2, 192, seed=1))
    assert truth.shape == (2, 2, 192, 192)
    mask, weight = truth[:, 0], truth[:, 1]
    assert 0.0 < float(mask.mean()) < 1.0
    assert set(weight.unique().tolist()) <= {1.0, phantom_data.UNSTAINED_WEIGHT}
    assert not (weight > 1.0)[mask == 0.0].any()


def test_patches_without_tumor_are_refused(pictures):
    empty = phantom_data.Pictures(
        pictures.rgb, np.full_like(pictures.class_map, -1, np.int8)
    )
    with pytest.raises(ValueError, match="at least one patch with tumor"):
        next(phantom_data.patch_batches(empty, 8, 64, seed=1))


def test_shipped_package_is_listed_and_small():
    known = json.loads((MODELS / "known.json").read_text(encoding="utf-8"))
    total = sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file())
    assert total < 8e6
    for name in ("segment", "classify"):
        content = (SHIPPED / name / "torchscript_model.pt").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        config = json.loads((SHIPPED / name / "config.json").read_text())
        assert config["her2fast"]["sha256"] == digest
        assert config["her2fast"]["synthetic"] is True
        assert digest in known


def test_shipped_package_reads_fresh_phantoms():
    """Well below the figures of training.json: a few pictures scatter."""
    figures = tiny_evaluation.evaluate_phantoms(
        tiny_evaluation.load_model(SHIPPED / "segment"),
        tiny_evaluation.load_model(SHIPPED / "classify"),
        count=4,
        size_px=512,
    )
    for values in figures.values():
        assert values["tumor_dice"] > 0.6
        assert values["macro_f1"] > 0.5


def test_shipped_classifier_bears_compression():
    """Before it was trained on compressed pictures .15 of the patches changed here."""
    moved = tiny_evaluation.evaluate_coding(
        tiny_evaluation.load_model(SHIPPED / "segment"),
        tiny_evaluation.load_model(SHIPPED / "classify"),
        count=4,
        size_px=512,
    )
    assert moved["420_q80"]["patches_changed"] < 0.09
    assert moved["420_q90"]["patches_changed"] < 0.06


def test_real_cores_rise_with_their_label(shared_data):
    """Order only; the labels are patient-level and no accuracy is claimed."""
    segmenter = tiny_evaluation.load_model(SHIPPED / "segment")
    classifier = tiny_evaluation.load_model(SHIPPED / "classify")

    def mean_class(name):
        rgb = tiny_evaluation.read_core(shared_data / "her2_cores" / name, 0.24)
        return tiny_evaluation.evaluate_picture(segmenter, classifier, rgb)[
            "mean_class"
        ]

    negative = max(mean_class("core_0_a.jpg"), mean_class("core_0_b.jpg"))
    equivocal = mean_class("core_2_ishpos_a.jpg")
    positive = mean_class("core_3_left_half.jpg")
    assert negative < equivocal < positive
