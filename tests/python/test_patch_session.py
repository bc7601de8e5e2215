# SPDX-License-Identifier: Apache-2.0
"""The native session against the method written out on one array, and its bytes."""

from __future__ import annotations

import gc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from her2fast import _core
from her2fast.errors import SlideError
from reference import patch_session as reference

CLASSES = ["0", "1+", "2+", "3+"]
HALO_PX = 32


def draw_slide(height_px: int, width_px: int, seed: int) -> npt.NDArray[np.uint8]:
    """Blobs of H-DAB-like tissue on glass."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px]
    rgb = np.full((height_px, width_px, 3), 250, np.float64)
    for _ in range(6):
        cx, cy = rng.uniform(0, width_px), rng.uniform(0, height_px)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < rng.uniform(20, 120) ** 2
        color = rng.choice([[150, 150, 190], [140, 100, 70], [190, 170, 170]])
        rgb[inside] = color
    rgb += rng.normal(0, 6, rgb.shape)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def segment(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Tumor where the red channel is under 165: a model that looks at one pixel."""
    return 164.5 - rgb[..., 0].astype(np.float32)


def classify(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits from mean colors, exact in float32 (sums under 2^24)."""
    r, g, b = (int(rgb[..., c].sum(dtype=np.int64)) for c in range(3))
    return np.array([b - r, r - g, g - b, r - b], np.float32) / 4096


def crop(
    slide: npt.NDArray[np.uint8], x: int, y: int, width: int, height: int
) -> npt.NDArray[np.uint8]:
    """A window; white beyond the slide."""
    out = np.full((height, width, 3), 255, np.uint8)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + width, slide.shape[1]), min(y + height, slide.shape[0])
    if x0 < x1 and y0 < y1:
        out[y0 - y : y1 - y, x0 - x : x1 - x] = slide[y0:y1, x0:x1]
    return out


def open_session(
    slide: npt.NDArray[np.uint8],
    *,
    has_segmenter: bool,
    classify_batch: int,
    max_open_bytes: int,
) -> _core.PatchSession:
    return _core.PatchSession(
        (slide.shape[1], slide.shape[0]),
        (1.0, 1.0),
        spacing_um=1.0,
        patch_px=64,
        tile_px=256,
        halo_px=HALO_PX,
        class_names=CLASSES,
        classify_batch=classify_batch,
        has_segmenter=has_segmenter,
        segment_batch=3,
        segment_channels=1,
        max_open_bytes=max_open_bytes,
    )


def run(
    slide: npt.NDArray[np.uint8],
    *,
    has_segmenter: bool,
    order: np.random.Generator | None = None,
    chunk: int = 8,
    max_open_bytes: int = 1,
    classify_batch: int = 5,
) -> _core.Measurement:
    session = open_session(
        slide,
        has_segmenter=has_segmenter,
        classify_batch=classify_batch,
        max_open_bytes=max_open_bytes,
    )
    while True:
        requests = session.wanted(chunk)
        if order is not None:
            requests = [requests[i] for i in order.permutation(len(requests))]
        for r in requests:
            rgb = crop(slide, r.x_px, r.y_px, r.width_px, r.height_px)
            session.push(r.id, rgb, "ok")
        while (batch := session.next_batch()) is not None:
            name = session.models[batch.model][0]
            model = segment if name == "segment" else classify
            session.put(batch.id, np.stack([model(item) for item in batch.rgb]))
        if not requests:
            return session.finish()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    height_px=st.integers(60, 560),
    width_px=st.integers(60, 560),
    seed=st.integers(0, 2**16),
    has_segmenter=st.booleans(),
    with_roi=st.booleans(),
)
def test_areas_equal_reference(height_px, width_px, seed, has_segmenter, with_roi):
    slide = draw_slide(height_px, width_px, seed)
    measurement = run(slide, has_segmenter=has_segmenter)
    roi_mask = np.ones(slide.shape[:2], bool)
    roi = []
    if with_roi:
        x0, y0, x1, y1 = (
            width_px * 0.1,
            height_px * 0.2,
            width_px * 0.7,
            height_px * 0.9,
        )
        ring = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        roi = [(False, [ring])]
        yy, xx = np.mgrid[0:height_px, 0:width_px] + 0.5
        roi_mask = (xx >= x0) & (xx < x1) & (yy >= y0) & (yy < y1)
    expected, dropped = reference.class_areas(
        slide, segment if has_segmenter else None, classify, roi_mask, 4, 64
    )
    decision = _core.decide(measurement, roi=roi, check_stain=False)
    assert decision["class_px"] == expected
    assert decision["dropped_tumor_px"] == dropped
    assert decision["roi_px"] == int(roi_mask.sum())
    mask = measurement.tumor_mask(0, 0, width_px, height_px).astype(bool)
    np.testing.assert_array_equal(
        mask, reference.tumor_mask(slide, segment if has_segmenter else None)
    )


def test_bytes_do_not_depend_on_order_memory_or_batch():
    slide = draw_slide(700, 900, 3)
    expected = run(slide, has_segmenter=True).to_bytes()
    assert len(expected) > 1000
    for seed, chunk, batch, memory in [(1, 3, 1, 1), (2, 100, 32, 1 << 30)]:
        got = run(
            slide,
            has_segmenter=True,
            order=np.random.default_rng(seed),
            chunk=chunk,
            classify_batch=batch,
            max_open_bytes=memory,
        )
        assert got.to_bytes() == expected
    again = _core.Measurement.from_bytes(expected)
    assert again.to_bytes() == expected
    assert (again.tiles_x, again.tiles_y, again.class_names) == (4, 3, CLASSES)


def test_missing_and_corrupt_tiles_withhold_the_score():
    slide = draw_slide(500, 500, 5)
    session = open_session(
        slide, has_segmenter=False, classify_batch=4, max_open_bytes=1 << 28
    )
    first, second, *rest = session.wanted(10)
    session.push(first.id, None, "corrupt")
    for r in [second, *rest[:-1]]:
        session.push(r.id, crop(slide, r.x_px, r.y_px, r.width_px, r.height_px), "ok")
    with pytest.raises(RuntimeError, match="batches are open"):
        session.finish()
    while (batch := session.next_batch()) is not None:
        session.put(batch.id, np.stack([classify(item) for item in batch.rgb]))
    decision = _core.decide(session.finish())
    assert decision["tiles"] == {
        "total": 4,
        "read": 2,
        "missing": 1,
        "corrupt": 1,
        "warned": 0,
    }
    assert (decision["status"], decision["code"]) == ("indeterminate", "MISSING_TILES")
    assert decision["guideline"] is None


def test_types_are_checked_at_the_border():
    slide = draw_slide(300, 300, 1)
    measurement = run(slide, has_segmenter=False)
    with pytest.raises(ValueError, match="rings"):
        _core.decide(measurement, roi=[(False, [np.zeros((4, 3))])])
    with pytest.raises(ValueError, match="rule set"):
        _core.decide(measurement, rule_set="asco-cap-1999")
    with pytest.raises(ValueError, match="calibration"):
        _core.decide(measurement, scale_q16=[1, 2])
    with pytest.raises(ValueError, match="ish"):
        _core.decide(measurement, ish="maybe")


def one_batch() -> tuple[_core.PatchSession, _core.Batch]:
    """A session of one tile, its pixels 120, and the segmenter's batch."""
    session = _core.PatchSession(
        (256, 256),
        (1.0, 1.0),
        spacing_um=1.0,
        patch_px=64,
        tile_px=256,
        halo_px=HALO_PX,
        class_names=CLASSES,
        classify_batch=5,
        has_segmenter=True,
        segment_batch=1,
        segment_channels=1,
    )
    (request,) = session.wanted(2)
    rgb = np.full((request.height_px, request.width_px, 3), 120, np.uint8)
    session.push(request.id, rgb, "ok")
    batch = session.next_batch()
    assert batch is not None
    return session, batch


def test_pixels_of_a_batch_cannot_be_written() -> None:
    session, batch = one_batch()
    with pytest.raises(ValueError, match="read-only"):
        batch.rgb[0, 0, 0] = 0
    pixels = batch.rgb
    del session, batch
    assert (pixels == 120).all()  # they outlive the session


class Unversioned:
    """A batch for consumers that pass no version: NumPy drops what is not known."""

    def __init__(self, batch: _core.Batch) -> None:
        self.batch = batch

    def __dlpack__(self) -> object:
        return self.batch.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.batch.__dlpack_device__()


@pytest.mark.parametrize("options", [{}, {"max_version": None, "copy": None}])
def test_a_consumer_without_versions_gets_the_pixels(options: dict[str, None]) -> None:
    session, batch = one_batch()
    view = _core.read_dlpack(batch.__dlpack__(**options))
    assert (view.pointer, view.shape) == (batch.rgb.ctypes.data, batch.rgb.shape)
    assert (view.strides, view.typestr) == (batch.rgb.strides, "|u1")
    assert view.device == batch.__dlpack_device__() == (1, 0)

    pixels = np.from_dlpack(Unversioned(batch))
    assert pixels.ctypes.data == batch.rgb.ctypes.data
    assert _core.read_dlpack(batch.__dlpack__(max_version=(1, 0))).read_only
    del session, batch, view
    gc.collect()
    assert (pixels == 120).all()


@pytest.mark.parametrize("shape", [(4, 5), (1, 20), (2, 2, 5), (4, 4)])
def test_an_output_of_another_batch_is_refused(shape: tuple[int, ...]) -> None:
    slide = draw_slide(300, 300, 1)
    session = open_session(
        slide, has_segmenter=False, classify_batch=5, max_open_bytes=1 << 28
    )
    for r in session.wanted(10):
        session.push(r.id, crop(slide, r.x_px, r.y_px, r.width_px, r.height_px), "ok")
    batch = session.next_batch()
    assert batch is not None
    count = np.prod(shape)
    words = f"need 5 x 4 outputs, got {count} in all, {shape[0]} along the first axis"
    with pytest.raises(SlideError, match=words) as caught:
        session.put(batch.id, np.zeros(shape, np.float32))
    assert caught.value.code == "MODEL_SHAPE"


def test_a_flat_output_has_no_axis_to_check() -> None:
    session, batch = one_batch()
    session.put(batch.id, np.zeros(batch.rgb[..., 0].size, np.float32))
