# SPDX-License-Identifier: Apache-2.0
"""Scenes as slides: their patches, labels and truth, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("scipy", reason="phantoms need SciPy: pip install her2fast[train]")

from her2fast.training.coding import halved
from her2fast.training.config import PretrainConfig
from her2fast.training.config_sections import Augment, Compute, Data, Train
from her2fast.training.loop import open_fabric
from her2fast.training.phantom_data import Pictures
from her2fast.training.pretrain import PretrainWork
from her2fast.training.scene_classifier import (
    STATISTICS,
    FinerPatches,
    scene_pieces,
)


def pictures(maps: list[np.ndarray]) -> Pictures:
    rgb = np.zeros((len(maps), 1, 8, 8, 3), np.uint8)
    for scene in range(len(maps)):
        rgb[scene, 0] = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) + 64 * scene
    return Pictures(rgb, np.stack(maps).astype(np.int8))


def test_patches_labels_and_shares() -> None:
    first = np.full((8, 8), -1)
    first[:4, :4] = 0
    first[0, :2] = 2  # 2 of 24 tumor pixels: under a tenth
    first[4:, 4:6] = 0
    second = np.full((8, 8), -1)
    second[:4, :4] = 1
    second[4, 4] = 3  # one pixel of sixteen is no patch
    empty = np.full((8, 8), -1)
    train, val = scene_pieces(pictures([first, second, empty]), 4, 4)
    assert [slide.id for slide in val.slides] == ["scene-00000"]
    assert [slide.id for slide in train.slides] == ["scene-00001"]
    assert val.slides[0].label == 0
    assert val.offsets.tolist() == [0, 2]
    assert val.column("row").tolist() == [0, 1]
    assert val.column("column").tolist() == [0, 1]
    assert val.column("tumor_px").tolist() == [16, 8]
    np.testing.assert_allclose(
        val.column("shares"), [[14 / 16, 0, 2 / 16, 0], [1, 0, 0, 0]]
    )
    assert val.arrays[0]["rgb"][1, 0, 0, 0] == 4 * 8 + 4
    assert train.slides[0].label == 1
    assert train.slides[0].shares == (0.0, 1.0, 0.0, 0.0)
    assert len(train) == 1


def test_finer_patches_lie_over_the_patches() -> None:
    maps = [np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((8, 8))]
    maps[1][:4] = -1
    random = np.random.default_rng(0)
    fine = random.integers(0, 256, (3, 1, 16, 16, 3), np.uint8)
    made = Pictures(halved(fine), np.stack(maps).astype(np.int8), fine)
    train, _ = scene_pieces(made, 4, 2)
    finer = FinerPatches(fine, train, 4, 2)
    index = np.arange(len(train))[::-1]
    assert len(index) == 6 + 9
    np.testing.assert_array_equal(halved(finer(index)), train.take("rgb", index))


def test_finer_patches_are_trained_on() -> None:
    """What a coding gives is of the picture's size, and what is coded the finer one."""
    maps = np.zeros((4, 64, 64), np.int8)
    fine = np.random.default_rng(1).integers(0, 256, (4, 1, 128, 128, 3), np.uint8)
    train, val = scene_pieces(Pictures(halved(fine), maps, fine), 32, 32)
    finer = FinerPatches(fine, train, 32, 32)

    def work(agreement: float) -> PretrainWork:
        config = PretrainConfig(
            data=Data(manifest=Path("none"), cache=Path("none")),
            train=Train(batch_size=12),
            augment=Augment(
                hue=0.0, blur_share=0.0, jpeg_share=1.0, jpeg_agreement=agreement
            ),
        )
        fabric = open_fabric(Compute())
        return PretrainWork(fabric, config, train, val, STATISTICS, None, finer)

    asked: list[int] = []
    whole = finer.__call__
    work_of = work(1.0)
    work_of._finer = lambda index: (asked.extend(index.tolist()), whole(index))[1]
    (batch,) = work_of.begin(1, nn.Identity()).batches
    assert batch[0].shape == (24, 3, 32, 32)
    assert sorted(asked) == list(range(12))
    with pytest.raises(ValueError, match="jpeg_agreement > 0 with finer"):
        work(0.0)


def test_overlapping_patches_and_nothing_to_train_on() -> None:
    whole = np.zeros((8, 8))
    train, _ = scene_pieces(pictures([whole, whole]), 4, 2)
    assert len(train) == 9
    with pytest.raises(ValueError, match="to train on and to validate"):
        scene_pieces(pictures([whole]), 4, 4)


def test_patches_can_have_targets_of_their_own() -> None:
    """Pretraining learns from these, and from the slide's label without them."""
    whole = np.zeros((8, 8))
    whole[:, 4:] = 2
    train, val = scene_pieces(pictures([whole, whole, whole, whole]), 4, 4)
    config = PretrainConfig(
        data=Data(manifest=Path("none"), cache=Path("none")),
        train=Train(batch_size=12),
        augment=Augment(hue=0.0, blur_share=0.0),
    )
    fabric = open_fabric(Compute())
    targets = (train.column("shares"), val.column("shares"))

    def seen(own: tuple[Any, Any] | None) -> list[list[float]]:
        work = PretrainWork(fabric, config, train, val, STATISTICS, own)
        plan = work.begin(1, nn.Identity())
        return sorted(row for _, target in plan.batches for row in target.tolist())

    assert seen(targets) == [[0.0, 0.0, 1.0, 0.0]] * 6 + [[1.0, 0.0, 0.0, 0.0]] * 6
    assert seen(None) == [[0.0, 0.0, 1.0, 0.0]] * 12

    class Zeroth(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([9.0, 0.0, 0.0, 0.0]).repeat(len(x), 1)

    def accuracy(own: tuple[Any, Any] | None) -> float:
        work = PretrainWork(fabric, config, train, val, STATISTICS, own)
        return work.validate(Zeroth())["val_accuracy"]

    assert accuracy(targets) == 0.5
    assert accuracy(None) == 0.0
