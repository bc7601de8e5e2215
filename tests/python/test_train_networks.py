# SPDX-License-Identifier: Apache-2.0
"""Backbones, weights from files, checkpoints, augmentation, drawing, rates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from her2fast.errors import UsageError
from her2fast.manifest import Entry
from her2fast.training.augment import Augmentation, normalized
from her2fast.training.backbones import (
    IMAGENET_MEAN,
    DenseNetEncoder,
    UNet,
    input_statistics,
    make_classifier,
    make_segmenter,
)
from her2fast.training.checkpoint import (
    checkpoint_state,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
)
from her2fast.training.cohort import TrainingSlide
from her2fast.training.config_sections import Augment, Model, Optimizer
from her2fast.training.loop import (
    epoch_seed,
    freeze_norms,
    make_optimizer,
    rate_factor,
)
from her2fast.training.losses import focal_loss, soft_cross_entropy
from her2fast.training.networks import parameter_count
from her2fast.training.packages import MEAN
from her2fast.training.patches import Pieces, batches, draw_epoch
from her2fast.training.vision import submodule


def flat(classes: int = 4) -> nn.Module:
    """An own backbone, as a user would write one."""
    return nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(3, classes))


def _steps(network: nn.Module, optimizer: Optimizer, loss: Any, count: int = 2) -> list:  # type: ignore[type-arg]
    engine = make_optimizer(network, optimizer)
    network.train()
    values = []
    for _ in range(count):
        value = loss(network)
        engine.zero_grad()
        value.backward()
        engine.step()
        values.append(float(value.detach()))
    return values


def test_the_papers_classifier_takes_two_steps() -> None:
    torch.manual_seed(0)
    network = make_classifier(Model(backbone="resnet18"), 4)
    assert 11e6 < parameter_count(network) < 12e6
    pictures = torch.randn(4, 3, 64, 64)
    target = torch.eye(4)
    losses = _steps(
        network,
        Optimizer(lr=1e-3),
        lambda n: soft_cross_entropy(n(pictures), target),
    )
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]


def test_the_papers_segmenter_takes_two_steps() -> None:
    torch.manual_seed(0)
    network = make_segmenter(Model(backbone="densenet121"))
    assert isinstance(network, UNet)
    assert isinstance(network.encoder, DenseNetEncoder)
    levels = network.encoder(torch.zeros(1, 3, 64, 64))
    assert [level.shape[1:] for level in levels] == [
        (64, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
        (1024, 4, 4),
    ]
    pictures = torch.randn(2, 3, 64, 64)
    mask = (pictures[:, 0] > 0).float()
    losses = _steps(
        network,
        Optimizer(lr=1e-2),
        lambda n: focal_loss(n(pictures)[:, 0], mask, alpha=0.5, gamma=2.0),
    )
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]


def test_own_and_timm_backbones() -> None:
    own = make_classifier(Model(backbone=f"{__name__}:flat"), 4)
    assert own(torch.zeros(5, 3, 64, 64)).shape == (5, 4)
    timm = make_classifier(Model(backbone="timm:resnet10t"), 4)
    assert timm(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    segmenter = make_segmenter(Model(backbone="timm:resnet10t"))
    assert segmenter(torch.zeros(1, 3, 96, 64)).shape == (1, 1, 96, 64)


@pytest.mark.parametrize(
    ("backbone", "complaint"),
    [
        ("resnet19", r"need tiny, resnet18, timm:NAME or package\.module:factory"),
        ("timm:resnet10x", "timm has no 'resnet10x'; it has: .*resnet10t"),
        ("nowhere:net", "No module named 'nowhere'"),
        (f"{__name__}:missing", "has no attribute 'missing'"),
        ("torch:pi", "cannot be called"),
        (f"{__name__}:wrong_shape", r"need outputs of shape \(2, 4\), got \(2, 5\)"),
        (f"{__name__}:no_network", "need a torch.nn.Module, got int"),
    ],
)
def test_bad_backbones_are_named(backbone: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_classifier(Model(backbone=backbone), 4)


def wrong_shape(classes: int) -> nn.Module:
    return flat(classes + 1)


def no_network(classes: int) -> int:
    return classes


def test_imagenet_weights_from_files(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = submodule("models").resnet18().state_dict()  # with its head of 1,000
    save_file(trained, tmp_path / "w.safetensors")
    torch.save(trained, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        model = Model(backbone="resnet18", weights=str(tmp_path / name))
        network = make_classifier(model, 4)
        assert torch.equal(
            network.state_dict()["conv1.weight"], trained["conv1.weight"]
        )
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    with pytest.raises(UsageError, match="tensors are missing or have another shape"):
        make_segmenter(Model(backbone="densenet121", weights=str(tmp_path / "w.pth")))
    with pytest.raises(UsageError, match=r'this backbone has none on the "hub"'):
        make_classifier(Model(backbone="tiny", weights="hub"), 4)
    with pytest.raises(UsageError, match="No such file"):
        make_classifier(Model(backbone="tiny", weights=str(tmp_path / "no.pth")), 4)


def test_densenet_weights_with_the_old_names(tmp_path: Path) -> None:
    trained = submodule("models").densenet121().state_dict()
    old = {
        key.replace("norm1", "norm.1").replace("conv2.", "conv.2."): value.clone()
        for key, value in trained.items()
    }
    save_file(old, tmp_path / "w.safetensors")
    model = Model(backbone="densenet121", weights=str(tmp_path / "w.safetensors"))
    network = make_segmenter(model)
    name = "denseblock1.denselayer1.conv2.weight"
    assert torch.equal(
        network.state_dict()[f"encoder.level4.1.{name.partition('.')[2]}"],
        trained[f"features.{name}"],
    )


class Harmful:
    """What a pickle could do on loading."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (subprocess.check_call, ([sys.executable, "-c", "raise SystemExit"],))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="holds no weights"):
        read_tensors(tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="need a table of tensors"):
        read_tensors(tmp_path / "list.pth")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_checkpoints_carry_optimizer_and_state(tmp_path: Path, name: Any) -> None:
    network, optimizer = flat(), Optimizer(name=name, lr=0.1)
    engine = make_optimizer(network, optimizer)
    network(torch.ones(2, 3, 64, 64)).sum().backward()
    engine.step()
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, network, {"epoch": 3, "best": 0.1 + 0.2}, engine)
    other = flat()
    fresh = make_optimizer(other, optimizer)
    assert load_checkpoint(path, other, fresh) == {"epoch": 3, "best": 0.1 + 0.2}
    assert checkpoint_state(path)["epoch"] == 3
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    before, after = engine.state_dict(), fresh.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for index, entries in before["state"].items():
        for key, value in entries.items():
            assert torch.equal(torch.as_tensor(value), after["state"][index][key])
    with pytest.raises(UsageError, match="is of another network"):
        load_checkpoint(path, nn.Linear(1, 1))
    save_checkpoint(path, network, {})
    with pytest.raises(UsageError, match="holds no optimizer"):
        load_checkpoint(path, other, fresh)
    (tmp_path / "bad").write_bytes(b"{}")
    with pytest.raises(UsageError, match="is no checkpoint"):
        checkpoint_state(tmp_path / "bad")


def test_augmentation_is_its_seed_and_turns_masks_alike() -> None:
    rgb = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    mask = rgb[..., 0].clone()
    change = Augmentation(Augment(group=4), "classes")
    first, turned = change(rgb, 7, mask)
    again, _ = change(rgb, 7, mask)
    other, _ = change(rgb, 8, mask)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == rgb.shape
    assert first.dtype == torch.uint8
    plain = Augmentation(
        Augment(brightness=0, contrast=0, saturation=0, hue=0, blur_share=0), "classes"
    )
    moved, masks = plain(rgb, 7, mask)
    assert masks is not None
    assert torch.equal(moved[..., 0], masks)
    assert turned is not None
    assert torch.equal(turned, masks)  # geometry does not depend on colors
    for i in range(6):  # a turn or a mirror image: the same pixels
        assert torch.equal(moved[i].flatten().sort()[0], rgb[i].flatten().sort()[0])
    off = Augment(
        flips=False,
        rotations=False,
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        blur_share=0,
    )
    still, _ = Augmentation(off, "classes")(rgb, 7)
    assert torch.equal(still, rgb)
    with pytest.raises(ValueError, match="side, side"):
        change(rgb[:, :16], 7)


def test_other_looks_are_asked_for_and_follow_the_seed() -> None:
    rgb = torch.randint(40, 256, (16, 32, 32, 3), dtype=torch.uint8)
    quiet = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "blur_share": 0}
    same = Augment(flips=False, rotations=False, looks=True, **quiet)
    first, _ = Augmentation(same, "classes")(rgb, 7)
    again, _ = Augmentation(same, "classes")(rgb, 7)
    other, _ = Augmentation(same, "classes")(rgb, 8)
    tumor, _ = Augmentation(same, "tumor")(rgb, 7)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, rgb)
    # A segmenter may lose its DAB, a classifier must not.
    assert (tumor.float() - rgb.float()).abs().mean() > (
        first.float() - rgb.float()
    ).abs().mean()


def test_every_turn_and_flip_occurs() -> None:
    marker = torch.zeros(400, 8, 8, 3, dtype=torch.uint8)
    marker[:, 0, 1] = 255
    plain = Augmentation(
        Augment(brightness=0, contrast=0, saturation=0, hue=0, blur_share=0), "classes"
    )
    turned, _ = plain(marker, 1)
    places = {tuple(one[..., 0].nonzero()[0].tolist()) for one in turned}
    assert places == {
        (0, 1),
        (0, 6),
        (1, 0),
        (1, 7),
        (6, 0),
        (6, 7),
        (7, 1),
        (7, 6),
    }


def test_pictures_are_normalized_as_a_package_states() -> None:
    rgb = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    got = normalized(rgb, (0.5, 0.1, 0.0), (0.5, 0.1, 2.0))
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 1.0, 0.5]))
    assert input_statistics(Model(backbone="tiny"))[0] == MEAN
    assert input_statistics(Model(backbone="resnet18"))[0] == IMAGENET_MEAN
    own = Model(backbone="tiny", mean=(0, 0, 0), std=(1, 1, 1))
    assert input_statistics(own) == ((0, 0, 0), (1, 1, 1))


def _pieces(sizes: list[int], labels: list[int], sites: list[str]) -> Pieces:
    slides = tuple(
        TrainingSlide(str(i), Entry(str(i), site=site), label, None, "train")
        for i, (label, site) in enumerate(zip(labels, sites, strict=True))
    )
    arrays = tuple({"x": np.arange(size) + 1000 * i} for i, size in enumerate(sizes))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Pieces(slides, arrays, offsets)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=4, max_size=4),
    count=st.integers(0, 200),
    seed=st.integers(0, 9),
)
@settings(max_examples=30)
def test_balanced_drawing(sizes: list[int], count: int, seed: int) -> None:
    pieces = _pieces(sizes, [0, 0, 2, 2], ["A", "A", "A", "B"])
    rng = np.random.default_rng(seed)
    drawn = draw_epoch(pieces, ["site", "label"], count, rng)
    assert len(drawn) == (count or len(pieces))
    owner = pieces.slide_of(drawn)
    groups = np.array([0, 0, 1, 2])[owner]
    counts = np.bincount(groups, minlength=3)
    assert counts.max() - counts.min() <= 1
    for group, size in enumerate((sizes[0] + sizes[1], sizes[2], sizes[3])):
        times = np.bincount(drawn[groups == group])
        times = times[times > 0]
        if len(times) and len(times) < size:
            assert times.max() == 1  # nothing twice before all came once
    plain = draw_epoch(pieces, [], 0, rng)
    assert sorted(plain.tolist()) == list(range(len(pieces)))
    values = pieces.take("x", plain)
    want = np.concatenate([array["x"] for array in pieces.arrays])[plain]
    np.testing.assert_array_equal(values, want)


@given(total=st.integers(0, 50), size=st.integers(2, 16), ranks=st.integers(1, 4))
def test_processes_share_batches(total: int, size: int, ranks: int) -> None:
    index = np.arange(total, dtype=np.int64)
    shares = [
        batches(index, size, rank=rank, ranks=ranks, whole=False)
        for rank in range(ranks)
    ]
    assert len({len(share) for share in shares}) == 1
    taken = sorted(np.concatenate([x for s in shares for x in s] or [index]).tolist())
    assert total - len(taken) < ranks
    assert len(set(taken)) == len(taken)
    whole = batches(index, size, rank=0, ranks=1, whole=True)
    assert all(len(cut) == size for cut in whole) or len(whole) == 1


def test_rates_and_seeds() -> None:
    assert rate_factor("constant", 0.7) == 1.0
    assert rate_factor("cosine", 0.0) == 1.0
    assert rate_factor("cosine", 1.0) == pytest.approx(0.0)
    assert rate_factor("one-cycle", 0.15) == pytest.approx(1.0)
    assert rate_factor("one-cycle", 0.0) == pytest.approx(0.04)
    seeds = {epoch_seed(0, epoch, purpose) for epoch in range(50) for purpose in (1, 2)}
    assert len(seeds) == 100
    assert epoch_seed(3, 4, 5) == epoch_seed(3, 4, 5)


def test_frozen_norms_do_not_move() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    freeze_norms(network)
    before = network[1].running_mean.clone()
    network(torch.randn(4, 3, 8, 8))
    assert torch.equal(network[1].running_mean, before)


def test_import_survives_a_torchvision_of_another_build() -> None:
    # As on a machine whose torch is a CPU build and whose torchvision is not: the
    # operators are declared, and what is used here works.
    functional = submodule("transforms.v2.functional")
    picture = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert functional.adjust_hue(picture, 0.1).shape == picture.shape
