# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries on the host: the same bytes, in the memory they have."""

from __future__ import annotations

import gc
import pickle
import re
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import CALLS, parts

from her2fast import _core, errors
from her2fast.errors import ArrayError, DeviceError
from her2fast.kernels import (
    arrays,
    cells,
    constraint_select,
    stain_census,
    stain_unmix,
    tumor_count,
)
from her2fast.kernels.membrane import membrane_label

seeds = st.integers(0, 2**32 - 1)


class Exported:
    """Another library's array on the host: DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: object) -> object:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class Described:
    """The same by NumPy's own interface."""

    def __init__(self, array: np.ndarray) -> None:
        self.__array_interface__ = array.__array_interface__
        self._array = array


def equal(got: object, want: object) -> None:
    for one, other in zip(parts(got), parts(want), strict=True):
        if isinstance(other, np.ndarray):
            one = one.numpy() if isinstance(one, torch.Tensor) else one
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
        else:
            assert one == other


@pytest.mark.parametrize("name", sorted(CALLS))
@settings(max_examples=15)
@given(seed=seeds)
def test_torch_in_and_out_has_the_bytes_of_numpy(name: str, seed: int) -> None:
    call = CALLS[name]
    given_ = call.make(np.random.default_rng(seed))
    want = call.run(**given_)
    got = call.run(**{key: torch.from_numpy(value) for key, value in given_.items()})
    equal(got, want)
    # A merge has no array that came in; all else has the kind of its first.
    if name != "membrane_label":
        for one, other in zip(parts(got), parts(want), strict=True):
            assert isinstance(one, torch.Tensor) == isinstance(other, np.ndarray)


@pytest.mark.parametrize("name", sorted(n for n in CALLS if CALLS[n].images))
@settings(max_examples=15)
@given(seed=seeds, above=st.integers(0, 3), left=st.integers(0, 3))
def test_part_of_a_larger_image_has_the_bytes_of_its_copy(
    name: str, seed: int, above: int, left: int
) -> None:
    call = CALLS[name]
    given_ = call.make(np.random.default_rng(seed))
    cut = dict(given_)
    for key in call.images:
        image = given_[key]
        larger = np.full(
            (image.shape[0] + above + 2, image.shape[1] + left + 2, *image.shape[2:]),
            77,
            image.dtype,
        )
        at = np.s_[above : above + image.shape[0], left : left + image.shape[1]]
        larger[at] = image
        cut[key] = larger[at]
    equal(call.run(**cut), call.run(**given_))


def received(monkeypatch: pytest.MonkeyPatch, stem: str) -> list[tuple[object, ...]]:
    """What the core's function gets from now on, as positional arguments and result."""
    calls: list[tuple[object, ...]] = []
    native = getattr(_core, stem)

    def spy(*given_: object, **more: object) -> object:
        out = native(*given_, **more)
        calls.append((*given_, out))
        return out

    monkeypatch.setattr(_core, stem, spy)
    return calls


WAYS = {
    "numpy": lambda a: a,
    "torch": torch.from_numpy,
    "parameter": lambda a: torch.nn.Parameter(torch.from_numpy(a), requires_grad=False),
    "dlpack": Exported,
    "interface": Described,
    "buffer": memoryview,
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
    "bool": lambda a: a.view(np.bool_),
    "torch bool": lambda a: torch.from_numpy(a.view(np.bool_)),
}


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("crop", [False, True])
def test_the_kernel_reads_the_memory_that_came_in(
    way: str, crop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.random.default_rng(3).integers(0, 2, (40, 50)).astype(np.uint8)
    if crop:
        mask = mask[3:30, 5:41]
    calls = received(monkeypatch, "tumor_count")
    counts = tumor_count(WAYS[way](mask), patch_px=4, stride_px=4)
    ((got, *_, out),) = calls
    assert got.__array_interface__["data"][0] == mask.__array_interface__["data"][0]
    assert got.strides == mask.strides
    if "torch" in way or way == "parameter":
        assert type(counts) is torch.Tensor
        assert counts.data_ptr() == out.__array_interface__["data"][0]
        counts = counts.numpy()
    else:
        assert counts is out
    want = mask[: mask.shape[0] // 4 * 4, : mask.shape[1] // 4 * 4]
    want = want.reshape(mask.shape[0] // 4, 4, -1, 4).sum((1, 3))
    np.testing.assert_array_equal(counts, want)


@pytest.mark.parametrize("way", ["numpy", "torch", "dlpack", "interface", "read-only"])
@pytest.mark.parametrize("crop", [False, True])
def test_memory_does_not_grow_by_the_input(way: str, crop: bool) -> None:
    rgb, mask = np.zeros((2000, 2000, 3), np.uint8), np.ones((2000, 2000), np.uint8)
    if crop:
        rgb, mask = rgb[500:, 500:], mask[500:, 500:]
    given_ = WAYS[way](rgb), WAYS[way](mask)
    tracemalloc.start()
    try:
        census = stain_census(*given_)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert census.pixels == mask.size
    assert peak < 100_000  # the picture has 7 or 12 MB


def test_gaps_in_rows_are_copied_and_nothing_else_is() -> None:
    pixels = np.arange(240, dtype=np.uint8).reshape(8, 10, 3)
    for gaps in (pixels[:, ::2], pixels[::-1], pixels[..., ::-1], pixels[:, :, :2]):
        copy = arrays.host(gaps, np.uint8, "rgb", rows=True)
        assert not np.shares_memory(copy, gaps)
        np.testing.assert_array_equal(copy, gaps)
    same_row = np.broadcast_to(pixels[0], (4, 10, 3))
    assert arrays.host(same_row, np.uint8, "rgb", rows=True).strides == (30, 3, 1)
    odd = np.frombuffer(bytes(41), np.uint8)[1:].view(np.float32)
    assert arrays.host(odd, np.float32, "logits").flags.aligned
    inner = pixels[2:5, 3:7]
    assert arrays.host(inner, np.uint8, "rgb", rows=True) is inner
    # A flat kernel has no rows.
    assert arrays.host(inner, np.uint8, "rgb").flags.c_contiguous


def test_channels_first_pictures_of_torch_are_copied_and_right() -> None:
    picture = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    got = stain_unmix(picture.permute(1, 2, 0))
    want = stain_unmix(picture.permute(1, 2, 0).contiguous())
    assert torch.equal(got, want)


def test_outputs_outlive_inputs_and_inputs_are_let_go() -> None:
    mask = torch.ones((64, 64), dtype=torch.uint8)
    gone = weakref.ref(mask)
    counts = tumor_count(mask, patch_px=8, stride_px=8)
    del mask
    gc.collect()
    assert gone() is None
    filler = [np.full((64, 64), 9, np.uint8) for _ in range(20)]
    assert counts.unique().tolist() == [64]
    assert len(filler) == 20
    counts.view(torch.int32).add_(1)  # the caller's own, to write to
    assert counts.unique().tolist() == [65]


def test_kinds_may_mix_on_the_host_and_the_first_decides() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 1, 1]]
    px = np.full(3, 100, np.uint32)
    want = constraint_select(logits, px, [0, 3], [0])
    first = constraint_select(torch.from_numpy(logits), px, torch.tensor([0, 3]), [0])
    other = constraint_select(logits, torch.from_numpy(px), [0, 3], torch.tensor([0]))
    equal(first, want)
    equal(other, want)
    assert type(first.action) is torch.Tensor
    assert type(other.action) is np.ndarray


class Lazy:
    """What computes its values when asked: pandas, zarr, h5py."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise AssertionError("was asked to compute")


class Elsewhere:
    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("was exported")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 10, 0  # ROCm


ONES = np.ones((8, 8), np.uint8)
BAD = {
    "list": (lambda: [[1, 0], [0, 1]], "ARRAY_KIND", "got list"),
    "none": (lambda: None, "ARRAY_KIND", "got NoneType"),
    "array only": (Lazy, "ARRAY_KIND", "got Lazy"),
    "masked": (lambda: np.ma.masked_array(ONES, ONES), "ARRAY_KIND", "fill"),
    "sparse": (lambda: torch.from_numpy(ONES).to_sparse(), "ARRAY_KIND", "sparse"),
    "half": (lambda: torch.ones(8, 8, dtype=torch.bfloat16), "ARRAY_KIND", "bfloat16"),
    "float": (lambda: ONES.astype(float), "ARRAY_DTYPE", "uint8, got float64"),
    "signed": (lambda: torch.ones(8, 8, dtype=torch.int8), "ARRAY_DTYPE", "got int8"),
    "meta": (
        lambda: torch.ones(8, 8, dtype=torch.uint8, device="meta"),
        "ARRAY_DEVICE",
        "on meta",
    ),
    "rocm": (Elsewhere, "ARRAY_DEVICE", "on the host"),
    "grad": (lambda: torch.ones(8, 8, requires_grad=True), "ARRAY_GRAD", "detach"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_would_need_a_conversion_is_refused(case: str) -> None:
    make, code, words = BAD[case]
    with pytest.raises(ArrayError, match=f"mask.*{words}") as caught:
        tumor_count(make(), patch_px=2, stride_px=2)
    assert caught.value.code == code
    assert isinstance(caught.value, TypeError)


def test_nothing_is_converted_for_any_argument() -> None:
    wide = np.zeros((8, 8), np.int64)
    with pytest.raises(ArrayError, match="need nuclei as an array of int32"):
        membrane_label(ONES, nuclei=wide)
    with pytest.raises(ArrayError, match="need offsets as integers, got float64"):
        constraint_select(
            np.zeros((0, 4), np.float32), wide[0, :0].astype("u4"), [0.5], []
        )
    with pytest.raises(ArrayError, match="detach"):
        constraint_select(torch.zeros((1, 4), requires_grad=True), ONES, [0, 1], [0])
    big_endian = np.zeros((2, 4), ">f4")
    with pytest.raises(ArrayError, match="need logits as an array of float32, got >f4"):
        constraint_select(big_endian, np.zeros(2, np.uint32), [0, 2], [0])


def test_tables_of_cells_stay_in_their_kind() -> None:
    call = CALLS["find_cells"]
    picture = call.make(np.random.default_rng(11))
    table = cells.find_cells(**picture)
    tensors = cells.find_cells(**{k: torch.from_numpy(v) for k, v in picture.items()})
    assert len(table) == len(tensors) > 0
    keep = np.arange(len(table)) % 2 == 0
    for use in (
        lambda t: t.take(keep).moved(3, -4),
        lambda t: cells.Cells.joined([t.moved(9, 9), t]),
        lambda t: (t.completeness, t.dab_mean),
        lambda t: cells.classify_cells(t, grid_um=0.5),
        lambda t: cells.classify_cells(t, grid_um=0.5).counts(),
    ):
        equal(use(tensors), use(table))
    assert type(tensors.take(torch.from_numpy(keep)).x) is torch.Tensor


def test_neither_torch_nor_cupy_is_imported() -> None:
    code = (
        "import sys, numpy as np; from her2fast.kernels import tumor_count, focus;"
        "import her2fast.kernels.cells, her2fast.kernels.membrane;"
        "tumor_count(memoryview(np.ones((4, 4), np.uint8)), patch_px=2, stride_px=2);"
        "assert not {'torch', 'cupy', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_guide_lists_every_code() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs/guide/arrays.md"
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", guide.read_text(), re.M))
    assert rows == errors.ARRAY_CODES


def test_errors_keep_their_code() -> None:
    for error in (ArrayError("a", "ARRAY_KIND"), DeviceError("b", "NO_TWIN")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.code) == (
            type(error),
            str(error),
            error.code,
        )
    assert DeviceError("c").code == "NO_DEVICE"
    with pytest.raises(ValueError, match="need a code of"):
        ArrayError("d", "ODD")
