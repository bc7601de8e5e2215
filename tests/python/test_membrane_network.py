# SPDX-License-Identifier: Apache-2.0
"""The membrane networks, histogram matching, and the cut that validation finds."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from her2fast.errors import UsageError
from her2fast.training.augment import normalized
from her2fast.training.config_sections import Model
from her2fast.training.histogram import HistogramMatch, read_reference
from her2fast.training.membrane import counts_by_logit, figures_by_cut
from her2fast.training.membrane_network import (
    RIDGE_PX,
    Cuts,
    KhamenehUNet,
    Packaged,
    TinyMembraneNet,
    make_membrane_network,
)
from her2fast.training.networks import fold_norms, parameter_count
from her2fast.training.packages import MEAN, STD, torchscript_bytes


def _script(path: Path) -> Any:
    with warnings.catch_warnings():
        # TorchScript is deprecated upstream; the package format is settled.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return torch.jit.load(path)  # type: ignore[no-untyped-call]


def test_the_papers_network() -> None:
    """5 x 5 then 3 x 3, batch norm after both, dropout after each of four poolings."""
    network = KhamenehUNet(widths=(4, 6, 8, 10, 12))
    for block in (*network.down, *network.up):
        assert [block.wide.kernel_size, block.narrow.kernel_size] == [(5, 5), (3, 3)]
        assert block.norm.num_features == block.narrow.out_channels
    assert network.head.kernel_size == (1, 1)
    calls: list[str] = []
    network.drop.register_forward_hook(lambda *_: calls.append("drop"))
    for block in network.down:
        block.register_forward_hook(lambda *_: calls.append("down"))
    for block in network.up:
        block.register_forward_hook(lambda *_: calls.append("up"))
    out = network(torch.zeros(1, 3, 64, 48))
    assert out.shape == (1, 2, 64, 48)
    assert calls == ["down"] + ["drop", "down"] * 4 + ["up"] * 4
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    network.train()
    assert not torch.equal(network(x), network(x))  # dropout draws
    network.eval()
    assert torch.equal(network(x), network(x))


def test_the_tiny_network_is_small_and_folds(tmp_path: Path) -> None:
    network = make_membrane_network(Model(backbone="tiny"))
    assert isinstance(network, TinyMembraneNet)
    assert parameter_count(network) < 500_000
    torch.manual_seed(1)
    x = torch.randn(2, 3, 64, 64)
    network.train()
    for _ in range(3):
        network(x)  # moves the running statistics
    before = network.eval()(x)
    after = fold_norms(network)(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    script = torchscript_bytes(Packaged(network, Cuts(0.5)), torch.zeros(2, 3, 64, 64))
    assert len(script) < 8_000_000
    (tmp_path / "m.pt").write_bytes(script)
    loaded = _script(tmp_path / "m.pt")
    got = loaded(x)
    torch.testing.assert_close(got[:, 0], after[:, 0] - 0.5, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[:, 1], after[:, 1], rtol=1e-4, atol=1e-4)
    # Another batch and size than traced.
    assert loaded(torch.zeros(3, 3, 96, 32)).shape == (3, 2, 96, 32)


class OneChannel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x)
        return out


def test_backbones_that_do_not_fit() -> None:
    with pytest.raises(
        UsageError, match=r"khameneh_unet, tiny or .* got 'densenet121'"
    ):
        make_membrane_network(Model(backbone="densenet121"))
    name = f"{__name__}:OneChannel"
    with pytest.raises(UsageError, match=r"\(2, 2, 64, 64\), got \(2, 1, 64, 64\)"):
        make_membrane_network(Model(backbone=name))


PICTURE = arrays(np.uint8, (9, 7, 3))


@settings(max_examples=40)
@given(
    picture=PICTURE,
    other=PICTURE,
    reference=arrays(
        np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3))
    ),
)
def test_matching_equals_scikit_image(
    picture: npt.NDArray[np.uint8],
    other: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
) -> None:
    from skimage.exposure import match_histograms

    match = HistogramMatch(reference, MEAN, STD)
    batch = torch.from_numpy(np.stack([picture, other]))
    got = match(normalized(batch, MEAN, STD)).permute(0, 2, 3, 1)
    gray = (got * torch.tensor(STD) + torch.tensor(MEAN)) * 255.0
    for one, source in zip(gray, (picture, other), strict=True):
        want = match_histograms(
            source.astype(np.int64), reference.astype(np.int64), channel_axis=2
        )
        # The oracle cuts fractions of a gray level off.
        excess = one.numpy() - want
        assert excess.min() > -1e-3
        assert excess.max() < 1 + 1e-3


def test_matching_a_picture_to_itself_changes_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    match = HistogramMatch(picture, MEAN, STD)
    x = normalized(torch.from_numpy(picture[None]), MEAN, STD)
    torch.testing.assert_close(match(x), x, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"need a picture \(h, w, 3\)"):
        HistogramMatch(picture[..., 0], MEAN, STD)


def test_matching_is_packed_with_the_network(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(90, 200, (24, 24, 3), np.uint8)).save(
        tmp_path / "tile.png"
    )
    match = HistogramMatch(read_reference(tmp_path / "tile.png"), MEAN, STD)
    network = make_membrane_network(Model(backbone="tiny")).eval()
    whole = Packaged(fold_norms(network), Cuts(0.0), match)
    (tmp_path / "m.pt").write_bytes(torchscript_bytes(whole, torch.zeros(2, 3, 64, 64)))
    loaded = _script(tmp_path / "m.pt")
    x = normalized(
        torch.from_numpy(rng.integers(0, 256, (3, 64, 64, 3), np.uint8)), MEAN, STD
    )
    torch.testing.assert_close(loaded(x), network(match(x)), atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match="is no picture"):
        read_reference(tmp_path / "m.pt")


@settings(max_examples=30)
@given(
    logits=arrays(np.float32, (1, 8, 8), elements=st.floats(-10, 10, width=32)),
    mask=arrays(np.uint8, (1, 8, 8), elements=st.sampled_from([0, 1, 255])),
)
def test_the_best_cut_is_the_best(
    logits: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]
) -> None:
    figures = figures_by_cut(
        counts_by_logit(torch.from_numpy(logits), torch.from_numpy(mask))
    )

    def dice(cut: float) -> float:
        called = (logits >= cut) & (mask != 255)
        right = int((called & (mask == 1)).sum())
        return 2 * right / max(int(called.sum()) + int((mask == 1).sum()), 1)

    cuts = np.arange(-8, 8.01, 1 / 16)
    assert figures["val_dice"] == pytest.approx(max(dice(cut) for cut in cuts))
    assert figures["val_dice"] == pytest.approx(dice(figures["val_cut"]))
    assert figures["val_dice_half"] == pytest.approx(dice(0.0))


@settings(max_examples=40)
@given(
    logits=arrays(np.float32, (9, 11), elements=st.floats(-6, 6, width=32)),
    low=st.none() | st.floats(-4, 0, width=32),
    slack=st.floats(0, 3, width=32),
)
def test_cuts_are_their_rule(
    logits: npt.NDArray[np.float32], low: float | None, slack: float
) -> None:
    """Membrane at `high`; at `low` where nothing near is higher by `slack`."""
    cuts = Cuts(1.0, low, slack)
    value = cuts(torch.from_numpy(logits)[None, None])[0, 0].numpy()
    for y, x in np.ndindex(logits.shape):
        here = logits[y, x]
        near = logits[
            max(0, y - RIDGE_PX) : y + RIDGE_PX + 1,
            max(0, x - RIDGE_PX) : x + RIDGE_PX + 1,
        ].max()
        expected = here - np.float32(1.0)
        if low is not None:
            ridge = min(here - np.float32(low), here - (near - np.float32(slack)))
            expected = max(expected, ridge)
        assert value[y, x] == pytest.approx(expected, abs=1e-5)


def test_a_faint_line_is_found_and_a_strong_one_is_not_widened() -> None:
    """By hand: one cut at -2 finds both lines, seven pixels wide; two cuts do not."""
    across = np.array([-9, -1.5, -1, -0.5, -1, -1.5, -9], np.float32)
    strong = np.array([-1.5, 0.0, 3, 4, 3, 0.0, -1.5], np.float32)
    blank = np.full(7, -9, np.float32)
    row = torch.from_numpy(np.concatenate([across, blank, strong]))
    tile = row.expand(1, 1, 9, -1)
    wide = (Cuts(-2.0)(tile) >= 0)[0, 0, 4].numpy()
    assert (wide[:7].sum(), wide[14:].sum()) == (5, 7)
    thin = (Cuts(2.0, -2.0, 0.5)(tile) >= 0)[0, 0, 4].numpy()
    assert np.flatnonzero(thin).tolist() == [2, 3, 4, 16, 17, 18]


def test_cuts_travel_in_the_package(tmp_path: Path) -> None:
    network = fold_norms(make_membrane_network(Model(backbone="tiny")))
    cuts = Cuts(0.5, -1.0, 0.25)
    script = torchscript_bytes(Packaged(network, cuts), torch.zeros(2, 3, 64, 64))
    (tmp_path / "m.pt").write_bytes(script)
    x = torch.randn(3, 3, 64, 64)
    found, plain = _script(tmp_path / "m.pt")(x), network(x)
    torch.testing.assert_close(found[:, :1], cuts(plain[:, :1]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[:, 1:], plain[:, 1:], atol=1e-4, rtol=1e-4)


def test_a_tile_takes_less_than_a_second() -> None:
    """A guard against a slip of a factor; the figure is that of the bench."""
    network = fold_norms(make_membrane_network(Model(backbone="tiny")))
    x = torch.zeros(1, 3, 512, 512)
    with torch.inference_mode():
        network(x)
        began = time.process_time()
        network(x)
    assert time.process_time() - began < 1.0
