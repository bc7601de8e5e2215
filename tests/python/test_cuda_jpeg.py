# SPDX-License-Identifier: Apache-2.0
"""JPEG tiles decoded on a GPU against the CPU's reader: near, not equal.

Each test runs on the CPU with a stand-in for nvJPEG, which proves the host's part
alone, and on a GPU (`needs_cuda`), which says whether NVIDIA's pixels are near enough.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import fake_cuda
import jpeg_tiles
import numpy as np
import pytest
from conftest import without
from cuda_memory import Memory, build_fake_nvjpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jpeg_tiles import Apart, FakeNvjpeg, Rgb, apart, picture
from tiff_files import encode_jpeg

import her2fast
from her2fast import _core, phantom
from her2fast.errors import ArrayError, DeviceError, SlideError
from her2fast.kernels.device_array import DeviceArray
from her2fast.kernels.jpeg import JpegDecoder, jpeg_decode
from her2fast.kernels.resample import resample

seeds = st.integers(0, 2**32 - 1)
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def tile(rgb: Rgb, **how: Any) -> bytes:
    """As most slides hold them, unless `how` says otherwise."""
    return encode_jpeg(rgb, **{"quality": 80, "subsampling": "4:2:0", **how})


@dataclass
class Place:
    """Where tiles are decoded: a decoder, and the stand-in where it is one."""

    decoder: JpegDecoder
    fake: FakeNvjpeg | None

    def decode(
        self, streams: list[bytes], height: int, width: int, tables: bytes = b""
    ) -> Rgb:
        shape = (len(streams), height, width, 3)
        with Memory() as memory:
            out = memory.empty(max(1, len(streams) * height * width * 3))
            array = fake_cuda.Described(fake_cuda.at(out, shape, np.uint8), 1)
            self.decoder.decode(streams, out=array, tables=tables)
            return memory.get(out, shape, np.uint8)


@pytest.fixture(
    scope="module",
    params=[
        "on_host",
        pytest.param("auto", marks=pytest.mark.needs_cuda),
        pytest.param("kernels", marks=pytest.mark.needs_cuda),
    ],
)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    if request.param != "on_host":
        yield Place(gpu_decoder(request.param), None)
        return
    fake = FakeNvjpeg(build_fake_nvjpeg(tmp_path_factory.mktemp("nvjpeg")))
    _core.cuda.set_library(request.getfixturevalue("library_on_host"))
    yield Place(JpegDecoder(library=fake.path), fake)
    _core.cuda.set_library("")


on_host_alone = pytest.mark.parametrize(
    "place", ["on_host"], indirect=True, scope="module"
)


def gpu_decoder(backend: str) -> JpegDecoder:
    try:
        return JpegDecoder(backend=backend)
    except DeviceError as error:
        without(str(error))


def check_near(got: Rgb, wanted: Rgb) -> Apart:
    found = apart(got, wanted)
    assert found.near, f"{found}: need at most 3 gray levels and under .5 in the mean"
    return found


@settings(max_examples=25)
@given(
    seed=seeds,
    size=st.tuples(st.integers(16, 140), st.integers(16, 140)),
    quality=st.integers(50, 95),
    sampling=st.sampled_from(SAMPLINGS),
    restart_mcus=st.sampled_from([0, 1, 5]),
)
@example(seed=1, size=(256, 256), quality=50, sampling="4:2:0", restart_mcus=0)
@example(seed=2, size=(256, 256), quality=70, sampling="4:2:2", restart_mcus=16)
@example(seed=3, size=(512, 512), quality=95, sampling="4:4:4", restart_mcus=0)
@example(seed=4, size=(37, 21), quality=80, sampling="4:2:0", restart_mcus=1)
def test_tiles_are_near_those_of_the_reader(
    place: Place,
    seed: int,
    size: tuple[int, int],
    quality: int,
    sampling: str,
    restart_mcus: int,
) -> None:
    rng = np.random.default_rng(seed)
    height, width = size
    streams = [
        tile(
            picture(rng, height, width),
            quality=quality,
            subsampling=sampling,
            restart_mcus=restart_mcus,
        )
        for _ in range(3)
    ]
    wanted = jpeg_decode(streams, height_px=height, width_px=width)
    check_near(place.decode(streams, height, width), wanted)


@on_host_alone
def test_the_comparison_sees_what_is_too_far(place: Place) -> None:
    """Red that is one level off passes; two are too much in the mean, four at all."""
    assert place.fake
    stream = tile(np.full((64, 64, 3), 120, np.uint8))
    wanted = jpeg_decode([stream], height_px=64, width_px=64)
    for shift, near in ((0, True), (1, True), (2, False), (4, False)):
        place.fake.set("shift", shift)
        found = apart(place.decode([stream], 64, 64), wanted)
        assert found.largest == shift
        assert found.mean == pytest.approx(shift / 3)
        assert found.near == near
    place.fake.reset()


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aperio, quality 80, of a drawn field that has every class; synthetic."""
    path = tmp_path_factory.mktemp("slide") / "drawn.svs"
    rgb = phantom.render(5, (768, 768), mixture=(0.25, 0.25, 0.25, 0.25)).rgb
    _core.write_pyramid(
        str(path), rgb, spacing_um=1.0, jpeg_quality=80, aperio=True, downsamples=[1]
    )
    return path


def test_a_slides_tiles_are_near_those_of_the_reader(place: Place, slide: Path) -> None:
    tiles = jpeg_tiles.slide_tiles(slide)
    side = tiles.tile_px
    got = place.decode(tiles.streams, side, side, tiles.tables)
    opened = her2fast.open_slide(slide)
    for i, pixels in enumerate(got):
        row, column = divmod(i, tiles.columns)
        read = opened.read(column * side, row * side, (side, side), 1.0)
        check_near(pixels, np.asarray(read))
    with pytest.raises(ValueError, match="item 0: need the tables"):
        place.decode(tiles.streams, side, side)


def decided(rgb: Rgb) -> dict[str, Any]:
    """The record of a slide with these pixels, by the shipped method."""
    height, width, _ = rgb.shape
    padded = np.pad(rgb, ((256, 512), (256, 512), (0, 0)), constant_values=255)
    session = her2fast.Session(
        None, extent_px=(width, height), level0_spacing_um=(1.0, 1.0)
    )
    while requests := session.wanted(8):
        for r in requests:
            x, y = r.x_px + 256, r.y_px + 256
            session.push(r.id, padded[y : y + r.height_px, x : x + r.width_px], "ok")
        session.run_models()
    record: dict[str, Any] = her2fast.decide(session.finish()).record
    return record


def test_both_pixels_give_the_same_score(place: Place, slide: Path) -> None:
    tiles = jpeg_tiles.slide_tiles(slide)
    side = tiles.tile_px
    wanted = jpeg_decode(
        tiles.streams, height_px=side, width_px=side, tables=tiles.tables
    )
    if place.fake:
        place.fake.set("shift", 1)  # near and not equal, as NVIDIA's will be
    got = place.decode(tiles.streams, side, side, tiles.tables)
    if place.fake:
        place.fake.reset()
        assert apart(got, wanted).largest == 1
    records = [decided(jpeg_tiles.joined(tiles, pixels)) for pixels in (got, wanted)]
    assert sum(records[1]["class_px"]) > 0
    for name in ("score", "status"):
        assert records[0][name] == records[1][name]
    shares = [np.array(r["class_px"]) / sum(r["class_px"]) for r in records]
    # The same score by more than luck: no class's area moves by a percent of the tumor.
    assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_the_batch_a_tile_is_in_does_not_matter(place: Place) -> None:
    rng = np.random.default_rng(6)
    streams = [tile(picture(rng, 96, 96)) for _ in range(130)]
    whole = place.decode(streams, 96, 96)
    assert place.decode(streams[::-1], 96, 96)[::-1].tobytes() == whole.tobytes()
    for count in (1, 7, 60):  # nvJPEG works otherwise above 50
        parts = [
            place.decode(streams[i : i + count], 96, 96)
            for i in range(0, len(streams), count)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes(), count


def test_nothing_is_decoded_of_nothing(place: Place) -> None:
    assert place.decode([], 16, 16).shape == (0, 16, 16, 3)


def test_what_is_not_taken_is_named(place: Place) -> None:
    good = tile(np.zeros((32, 32, 3), np.uint8))
    progressive = tile(np.zeros((32, 32, 3), np.uint8)).replace(
        b"\xff\xc0", b"\xff\xc2"
    )
    for bad, words in (
        (progressive, "item 1: need a baseline JPEG, got a progressive one"),
        (tile(np.zeros((32, 30, 3), np.uint8)), "item 1: need 32 x 32 px, got 30"),
        (good[:-2], "item 1: need an end of image"),
        (b"", "item 1: need a JPEG stream that begins"),
    ):
        with pytest.raises(ValueError, match=words):
            place.decode([good, bad, good], 32, 32)
        # The decoder lives on.
        check_near(
            place.decode([good], 32, 32),
            jpeg_decode([good], height_px=32, width_px=32),
        )


def test_tiles_are_resampled_where_they_were_decoded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From bytes to a coarser grid, all of it on the GPU."""
    rng = np.random.default_rng(9)
    streams = [tile(picture(rng, 96, 128)) for _ in range(5)]
    ways: list[dict[str, Any]] = [
        {"step": (2, 2), "size_px": (64, 48)},
        {"step": (Fraction(25, 24), Fraction(16, 3)), "size_px": (122, 18)},
    ]
    with Memory() as memory:
        tiles = device_array(memory, 5, 96, 128, 3)
        with monkeypatch.context() as without_copies:
            without_copies.setattr(_core.cuda, "copy", None)
            place.decoder.decode(streams, out=tiles)
            outs = [resample(tiles, **way) for way in ways]
        pixels = memory.get(tiles.array.ctypes.data, tiles.shape, np.uint8)
        for out, way in zip(outs, ways, strict=True):
            assert isinstance(out, DeviceArray)
            np.testing.assert_array_equal(
                memory.get(out.pointer, out.shape, np.uint8), resample(pixels, **way)
            )


def device_array(memory: Memory, *shape: int, dtype: Any = np.uint8) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return fake_cuda.Described(fake_cuda.at(memory.empty(size), shape, dtype), 1)


def test_arguments_of_the_wrapper(place: Place) -> None:
    stream = tile(np.zeros((16, 16, 3), np.uint8))
    with Memory() as memory:
        for shape in ((1, 16, 16), (1, 16, 16, 4), (2, 16, 16, 3)):
            with pytest.raises(ValueError, match=r"need out of shape \(1, H, W, 3\)"):
                place.decoder.decode([stream], out=device_array(memory, *shape))
        out = device_array(memory, 1, 16, 16, 3)
        assert place.decoder.decode([stream], out=out) is out
        with pytest.raises(ValueError, match="got RGB-coded streams"):
            place.decoder.decode([stream], out=out, rgb=True)
        with pytest.raises(ArrayError, match="need out as an array of uint8"):
            place.decoder.decode(
                [stream], out=device_array(memory, 1, 16, 16, 3, dtype=np.int8)
            )
    with pytest.raises(ValueError, match='"auto", "engine" or "kernels", got "cpu"'):
        JpegDecoder(backend="cpu")
    with pytest.raises(
        DeviceError, match=r"no nvJPEG: /nowhere.*pip install"
    ) as caught:
        JpegDecoder(library="/nowhere/libnvjpeg.so.13")
    assert caught.value.code == "NO_DEVICE"


@on_host_alone
def test_it_says_who_decodes(place: Place) -> None:
    fake = place.fake
    assert fake
    decoder = JpegDecoder(library=fake.path, device=1)
    assert (decoder.backend, decoder.version) == ("engine", (13, 0, 1))
    assert (decoder.library, decoder.device) == (fake.path, 1)
    assert JpegDecoder(library=fake.path, backend="kernels").backend == "kernels"
    fake.fail("nvjpegJpegStateCreate", 5)
    with pytest.raises(SlideError) as caught:
        JpegDecoder(library=fake.path)
    assert caught.value.code == "GPU_OOM"
    alive = fake.seen("alive")
    del decoder
    gc.collect()
    assert fake.seen("alive") < alive


def test_the_cpus_own_decoding_names_what_it_refuses() -> None:
    good = tile(picture(np.random.default_rng(1), 20, 30), subsampling="4:4:4")
    with pytest.raises(ValueError, match="item 1: need a JPEG of 30 x 20 px"):
        jpeg_decode([good, good[:-9]], height_px=20, width_px=30)
    with pytest.raises(ValueError, match="item 0: need a JPEG of 20 x 30 px"):
        jpeg_decode([good], height_px=30, width_px=20)
    with pytest.raises(ValueError, match="need 1 to 65500 px a side, got 0 x 20"):
        jpeg_decode([good], height_px=20, width_px=0)
    # The file's word on colors counts: what was YCbCr is then read as it lies.
    plain = jpeg_decode([good], height_px=20, width_px=30)
    coded = jpeg_decode([good], height_px=20, width_px=30, rgb=True)
    luma = plain.astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(coded[..., 0] - luma).mean() < 2


@pytest.mark.needs_cuda
@pytest.mark.parametrize("backend", ["auto", "kernels"])
def test_a_callers_stream_orders_what_is_decoded(backend: str) -> None:
    """Written after what the stream still reads, and before what is queued next."""
    import torch

    if not torch.cuda.is_available():
        without("torch has no CUDA device")
    decoder = gpu_decoder(backend)
    rng = np.random.default_rng(8)
    streams = [tile(picture(rng, 256, 256)) for _ in range(64)]
    wanted = jpeg_decode(streams, height_px=256, width_px=256)
    out = torch.empty(wanted.shape, dtype=torch.uint8, device="cuda")
    heavy = torch.randn((4096, 4096), device="cuda")
    for round_ in range(20):
        with torch.cuda.stream(torch.cuda.Stream()):
            out.fill_(round_)
            for _ in range(8):
                heavy @ heavy  # the stream is busy when the batch comes
            before = out.clone()
            decoder.decode(streams, out=out)
            after = out.clone()
            torch.cuda.current_stream().synchronize()
        assert bool((before == round_).all())
        check_near(after.cpu().numpy(), wanted)
