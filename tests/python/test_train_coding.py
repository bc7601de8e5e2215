# SPDX-License-Identifier: Apache-2.0
"""Compression as an augmentation, and what two codings of a picture disagree in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="the oracle is SciPy: pip install her2fast[train]")

from scipy import ndimage

from her2fast.training import coding, losses
from her2fast.training.augment import Augmentation
from her2fast.training.config import PretrainConfig
from her2fast.training.config_sections import Augment, Compute, Data, Train
from her2fast.training.loop import open_fabric
from her2fast.training.networks import TinyClassifier
from her2fast.training.phantom_data import Pictures
from her2fast.training.pretrain import PretrainWork
from her2fast.training.scene_classifier import STATISTICS, scene_pieces

LUMA = np.array([0.299, 0.587, 0.114])
QUIET = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "blur_share": 0}


def picture(side: int, seed: int = 0) -> np.ndarray:
    """Soft spots of color: what JPEG can hold, unlike white noise."""
    noise = np.random.default_rng(seed).normal(size=(side, side, 3))
    soft = ndimage.gaussian_filter(noise, (1.2, 1.2, 0), mode="wrap")
    return np.clip(190 + 90 * soft, 0, 255).astype(np.uint8)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_stripes_of_color_are_lost_at_half_resolution_alone() -> None:
    """Two colors of one brightness, one pixel wide, by hand: their mean is left."""
    stripes = np.empty((32, 32, 3), np.uint8)
    stripes[:, ::2] = (200, 150, 150)  # Y = 164.95
    stripes[:, 1::2] = (150, 175, 151)  # Y = 164.79
    full = coding.coded(stripes, 100, coding.FULL_COLOR).astype(int)
    half = coding.coded(stripes, 100, coding.QUARTER_COLOR).astype(int)
    assert np.abs(full - stripes).max() <= 3
    assert np.abs(half - [175, 163, 150]).max() <= 4
    assert np.abs(half @ LUMA - 165).max() < 3


def test_units_lie_where_the_phase_says() -> None:
    """With full colors units of 8 px are independent of what surrounds them."""
    rgb = picture(32)
    at = [coding._shifted(rgb, 70, coding.FULL_COLOR, [down, 0]) for down in (0, 8, 4)]
    plain = coding.coded(rgb, 70, coding.FULL_COLOR)
    np.testing.assert_array_equal(at[0], plain)
    np.testing.assert_array_equal(at[1], plain)
    assert (at[2] != plain).any()


def test_means_by_hand() -> None:
    rgb = np.zeros((1, 2, 4, 3), np.uint8)
    rgb[0, :, :2, 0] = [[255, 255], [255, 255]]
    rgb[0, :, 2:, 1] = [[1, 0], [0, 1]]  # a half goes up
    rgb[0, :, 2:, 2] = [[1, 0], [0, 0]]
    assert coding.halved(rgb).tolist() == [[[[255, 0, 0], [0, 1, 0]]]]


def test_a_finer_picture_is_coded_as_it_is() -> None:
    rgb = picture(64, 5)
    fine = torch.from_numpy(rgb)[None]
    one = coding.Coding(share=1.0, finer=1.0, quality=(70, 70), colors=(0.0, 0.0, 1.0))
    found = coding.code(fine, random(3), one, finer=True)[0].numpy()
    means = coding.halved(rgb)
    assert found.shape == means.shape
    # One of the 256 places of the units over the picture.
    places = [
        coding.halved(coding._shifted(rgb, 70, coding.QUARTER_COLOR, [down, right]))
        for down in range(16)
        for right in range(16)
    ]
    assert any(np.array_equal(found, place) for place in places)
    raw = coding.code(fine, random(3), replace(one, share=0.0), finer=True)[0]
    np.testing.assert_array_equal(raw.numpy(), means)
    # A stored level is of the means, and so is what pictures of its spacing give.
    stored = replace(one, finer=0.0)
    np.testing.assert_array_equal(
        coding.code(fine, random(4), stored, finer=True),
        coding.code(torch.from_numpy(means)[None], random(4), stored),
    )


def test_twice_as_fine_and_back_is_the_picture() -> None:
    rgb = picture(48, 1)
    again = coding.halved(coding._doubled(rgb)).astype(int)
    # Where the finer picture would leave 0 to 255 it is cut.
    assert np.abs(again - rgb)[(rgb > 20) & (rgb < 235)].max() <= 1


def test_a_finer_level_loses_less() -> None:
    rgb = torch.from_numpy(picture(64, 2))[None].repeat(12, 1, 1, 1)
    hard = coding.Coding(share=1.0, quality=(60, 60), colors=(0.0, 0.0, 1.0))

    def loss(finer: float) -> float:
        out = coding.code(rgb, random(), replace(hard, finer=finer))
        return float((out.float() - rgb.float()).abs().mean())

    assert 0.0 < loss(1.0) < 0.7 * loss(0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([16, 33, 64]))
def test_coding_is_its_seed(seed: int, count: int, side: int) -> None:
    rgb = torch.from_numpy(np.stack([picture(side, k) for k in range(count)]))
    kept = rgb.clone()
    one = coding.code(rgb, random(seed))
    assert torch.equal(one, coding.code(rgb, random(seed)))
    assert torch.equal(rgb, kept)
    assert one.shape == rgb.shape
    assert one.dtype == torch.uint8
    raw = coding.code(rgb, random(seed), coding.Coding(share=0.0))
    assert torch.equal(raw, rgb)


def test_shares_are_what_is_coded() -> None:
    rgb = torch.from_numpy(picture(32, 3))[None].repeat(400, 1, 1, 1)
    out = coding.code(rgb, random(1), coding.Coding(share=0.4))
    changed = (out != rgb).flatten(1).any(1)
    assert 0.3 < float(changed.float().mean()) < 0.5
    assert len({item.numpy().tobytes() for item in out[changed]}) > 100


def test_the_augmentation_codes_last_and_leaves_masks() -> None:
    rgb = torch.from_numpy(np.stack([picture(32, k) for k in range(6)]))
    mask = torch.arange(6 * 32 * 32).reshape(6, 32, 32)
    still = Augment(flips=False, rotations=False, **QUIET)
    same, _ = Augmentation(still, "classes")(rgb, 5)
    assert torch.equal(same, rgb)  # the default codes nothing
    change = Augmentation(replaced(still, jpeg_share=1.0), "classes")
    out, kept = change(rgb, 5, mask)
    assert kept is not None
    assert torch.equal(kept, mask)
    assert (out != rgb).flatten(1).any(1).all()
    assert torch.equal(out, change(rgb, 5)[0])
    assert not torch.equal(out, change(rgb, 6)[0])


def test_two_ways_share_all_but_the_file() -> None:
    rgb = torch.from_numpy(np.stack([picture(32, k) for k in range(6)]))
    change = Augmentation(Augment(looks=True, jpeg_share=1.0, **QUIET), "classes")
    first, second = change.twice(rgb, 5).chunk(2)
    assert torch.equal(first, change(rgb, 5)[0])
    assert (first != second).flatten(1).any(1).all()
    fine = rgb.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert change.twice(fine, 5, finer=True).shape == (12, 32, 32, 3)
    # Other looks and turns move far more than files do.
    other, _ = change(rgb, 6)
    apart = [float((first.float() - x.float()).abs().mean()) for x in (second, other)]
    assert apart[0] < 0.5 * apart[1]


def test_disagreement_by_hand() -> None:
    log = np.log
    one = torch.tensor([[log(0.5), log(0.5)], [2.0, 5.0]])
    other = torch.tensor([[log(0.8) + 3, log(0.2) + 3], [2.0, 5.0]])
    # KL both ways: .5 ln(.5/.8) + .5 ln(.5/.2) and .8 ln(.8/.5) + .2 ln(.2/.5)
    wanted = 0.5 * (0.5 * (log(0.625) + log(2.5)) + 0.8 * log(1.6) + 0.2 * log(0.4))
    found = losses.disagreement(one, other)
    assert float(found) == pytest.approx(0.5 * wanted, abs=1e-6)
    assert float(losses.disagreement(other, one)) == pytest.approx(float(found))
    assert float(losses.disagreement(one, one)) == 0.0
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(1, 2\)"):
        losses.disagreement(one, other[:1])


def test_pretraining_adds_what_two_ways_disagree() -> None:
    maps = np.zeros((2, 64, 64), np.int8)
    rgb = np.stack([picture(64, k) for k in range(2)])[:, None]
    train, val = scene_pieces(Pictures(rgb, maps), 32, 32)

    def work(**values: float) -> PretrainWork:
        config = PretrainConfig(
            data=Data(manifest=Path("none"), cache=Path("none")),
            train=Train(batch_size=4),
            augment=Augment(**QUIET, **values),
        )
        return PretrainWork(open_fabric(Compute()), config, train, val, STATISTICS)

    torch.manual_seed(0)
    network = TinyClassifier().eval()
    with torch.no_grad():
        network.head.weight *= 1e4  # random weights hardly tell pictures apart
    losses_of = []
    for weight in (1e-9, 2.0):
        both = work(jpeg_share=1.0, jpeg_agreement=weight)
        plan = both.begin(1, network)
        (batch,) = plan.batches
        pictures, target = batch
        assert pictures.shape[0] == 2 * len(target) == 8
        losses_of.append(float(both.loss(network, batch).detach()))
    first, second = network(pictures).detach().chunk(2)
    added = 2.0 * float(losses.disagreement(first, second))
    assert added > 0
    assert losses_of[1] - losses_of[0] == pytest.approx(added, rel=1e-3)
    (plain,) = work(jpeg_share=1.0).begin(1, network).batches
    assert torch.equal(plain[0], pictures[:4])
    with pytest.raises(ValueError, match="need jpeg_share > 0"):
        work(jpeg_agreement=1.0)


def replaced(config: Augment, **values: float) -> Augment:
    return Augment(**{**config.model_dump(), **values})
