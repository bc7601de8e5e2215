# SPDX-License-Identifier: Apache-2.0
"""Kernels on arrays that lie on a GPU: shapes checked, outputs made, the twin queued.

One function per stem that has a CUDA twin; their contract is that of the wrapper of the
same name. Nothing is copied and nothing waits (`her2fast.kernels.device_arrays`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels.arrays import AnyArray
from her2fast.kernels.device_arrays import DeviceCall, DeviceView

__all__ = [
    "constraint_select",
    "membrane_label",
    "normalize_batch",
    "resample",
    "stain_unmix",
    "tissue_mask",
    "tumor_count",
]

#: Fields of `Her2SlideConstraints` (cuda_api.h): first word of 64 bits, and how many.
_SLIDE_FIELDS = {
    "class_px": (0, 4),
    "excess_px": (4, 4),
    "pushed_px": (8, 4),
    "missing_px": (12, None),
    "pulled_px": (13, None),
}
_REACH_WORD = 14


def tumor_count(
    mask: AnyArray, patch_px: int, stride_px: int, device: str | None
) -> Any:
    """(H, W) uint8 or bool -> (rows, columns) uint32."""
    call = DeviceCall("tumor_count", device, mask)
    pixels = call.take(mask, np.uint8, "mask", mask=True)
    height, width = _plane(pixels, "mask")
    shape = _core.grid_shape(height, width, patch_px, stride_px)
    out, address = call.empty(shape, np.uint32)
    if 0 not in shape:
        call.twin(
            pixels.pointer, 1, height, width, patch_px, stride_px, address, call.stream
        )
    return out


def tissue_mask(rgb: AnyArray, white: Sequence[int], device: str | None) -> Any:
    """(H, W, 3) uint8 -> (H, W) uint8."""
    glass = _white(white)
    call = DeviceCall("tissue_mask", device, rgb)
    pixels = call.take(rgb, np.uint8, "rgb")
    height, width = _picture(pixels, "rgb")
    out, address = call.empty((height, width), np.uint8)
    if height and width:
        call.twin(pixels.pointer, 1, height, width, glass, address, call.stream)
    return out


def stain_unmix(
    rgb: AnyArray,
    white: Sequence[int],
    stains: list[list[float]],
    device: str | None,
) -> Any:
    """(H, W, 3) uint8 -> (H, W, 3) float32."""
    glass = _white(white)
    call = DeviceCall("stain_unmix", device, rgb)
    pixels = call.take(rgb, np.uint8, "rgb")
    height, width = _picture(pixels, "rgb")
    out, address = call.empty((height, width, 3), np.float32)
    if height and width:
        call.twin(pixels.pointer, height * width, glass, stains, address, call.stream)
    return out


def normalize_batch(
    rgb: AnyArray,
    mean: Sequence[float],
    std: Sequence[float],
    half: bool,
    device: str | None,
) -> Any:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32 or float16."""
    call = DeviceCall("normalize_batch", device, rgb)
    pixels = call.take(rgb, np.uint8, "rgb")
    n, height, width = _pictures(pixels, "rgb")
    out, address = call.empty((n, 3, height, width), np.float16 if half else np.float32)
    # Also of nothing: mean and std are checked there.
    call.twin(pixels.pointer, n, height, width, mean, std, half, address, call.stream)
    return out


def resample(
    rgb: AnyArray, x: _core.AxisWeights, y: _core.AxisWeights, device: str | None
) -> Any:
    """(n, H, W, 3) uint8 -> (n, y.count, x.count, 3) uint8."""
    call = DeviceCall("resample", device, rgb)
    pixels = call.take(rgb, np.uint8, "rgb")
    n, height, width = _pictures(pixels, "rgb")
    size = _core.cuda.resample_scratch_bytes(x, y)
    scratch_at = call.scratch(size)
    out, address = call.empty((n, y.count, x.count, 3), np.uint8)
    # Also of nothing: sizes are checked there.
    call.twin(
        pixels.pointer,
        n,
        height,
        width,
        x,
        y,
        address,
        scratch_at,
        size,
        call.stream,
    )
    return out


def constraint_select(
    logits: AnyArray,
    tumor_px: AnyArray,
    offsets: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    limits: _core.FractionLimits,
    neighbors: str,
    device: str | None,
) -> dict[str, Any]:
    """(n, 4) float32 and (n,) uint32 -> `ConstraintSelection`; waits for its errors."""
    call = DeviceCall("constraint_select", device, logits, tumor_px)
    scores = call.take(logits, np.float32, "logits")
    px = call.take(tumor_px, np.uint32, "tumor_px")
    if len(px.shape) != 1 or scores.shape != (px.shape[0], 4):
        raise ValueError(
            f"need logits of shape (patches, 4) and tumor_px of shape (patches,), got "
            f"{scores.shape} and {px.shape}"
        )
    patches, slides = px.shape[0], len(labels)
    if offsets.shape != (slides + 1,) or labels.ndim != 1 or offsets[-1] != patches:
        raise ValueError(
            f"need {slides + 1} offsets from 0 to {patches} for {slides} labels, got "
            f"{offsets.tolist()[-1:]} at the end of {offsets.size}"
        )
    action, action_at = call.empty((patches,), np.uint8)
    class_id, class_at = call.empty((patches,), np.int8)
    admissible, admissible_at = call.empty((patches,), np.uint8)
    rows, rows_at = call.empty((slides, _core.cuda.SLIDE_WORDS), np.int64)
    fault, fault_at = call.empty((1,), np.int64)
    size = _core.cuda.constraint_select_scratch_bytes(
        patches, slides, call.library.device
    )
    scratch, scratch_at = call.empty((size,), np.uint8)
    call.twin(
        scores.pointer,
        px.pointer,
        offsets,
        labels,
        limits,
        neighbors,
        action_at,
        class_at,
        admissible_at,
        rows_at,
        fault_at,
        scratch_at,
        size,
        call.stream,
    )
    told = np.empty(1, np.int64)
    _core.cuda.copy(
        told.ctypes.data, fault_at, told.nbytes, _core.cuda.TO_HOST, call.stream
    )
    _core.cuda.synchronize(call.stream, call.library.device)
    del scratch, fault  # not before the stream has passed
    _check_fault(int(told[0]), patches)
    words = call.library.reinterpret(rows, np.int32)  # the lower one comes first
    return {
        "action": action,
        "class_id": class_id,
        "admissible": admissible,
        "reach": call.library.columns(words, 2 * _REACH_WORD),
        **{
            name: call.library.columns(rows, first, count)
            for name, (first, count) in _SLIDE_FIELDS.items()
        },
    }


def membrane_label(
    mask: AnyArray,
    density: AnyArray | None,
    nuclei: AnyArray | None,
    device: str | None,
) -> _core.MembraneTile:
    """(H, W) uint8 or bool -> a tile, which lies on the host: waits for it."""
    call = DeviceCall("membrane_label", device, mask, density, nuclei)
    pixels = call.take(mask, np.uint8, "mask", mask=True)
    height, width = _plane(pixels, "mask")
    hundredths = None if density is None else call.take(density, np.uint8, "density")
    if hundredths is not None and hundredths.shape != pixels.shape:
        raise ValueError(f"need a density of {pixels.shape}, got {hundredths.shape}")
    points, points_at, count = None, 0, 0
    if nuclei is not None:
        points, points_at, count = _points(call, nuclei)
    size = _core.cuda.membrane_label_scratch_bytes(
        1, height, width, call.library.device
    )
    scratch, scratch_at = call.empty((size,), np.uint8)
    batch = call.twin(
        pixels.pointer,
        0 if hundredths is None else hundredths.pointer,
        1,
        height,
        width,
        points_at,
        count,
        scratch_at,
        size,
        call.stream,
    )
    (tile,) = batch.tiles(call.library.device)
    del scratch, points  # not before the stream has passed
    found: _core.MembraneTile = tile
    return found


def _points(call: DeviceCall, nuclei: AnyArray) -> tuple[Any, int, int]:
    """(n, 2) x and y -> (n, 3): the number of the tile before them."""
    given = call.take(nuclei, np.int32, "nuclei")
    if len(given.shape) != 2 or given.shape[1] != 2:
        raise ValueError(f"need nuclei of shape (n, 2): x and y, got {given.shape}")
    points, address = call.empty((given.shape[0], 3), np.int32)
    call.library.fill(points, 0, 0)
    call.library.fill(points, slice(1, 3), nuclei)
    return points, address, given.shape[0]


def _check_fault(fault: int, patches: int) -> None:
    """The words of the CPU's kernel."""
    if fault >= patches:
        raise ValueError(f"need under 2^50 tumor pixels in slide {fault - patches}")
    if fault >= 0:
        raise ValueError(f"need finite logits, got another at patch {fault}")


def _white(white: Sequence[int]) -> list[int]:
    for value in white:
        if not 0 <= value <= 255:
            raise ValueError(
                f"need a white point of 0 to 255 in every channel, got {value}"
            )
    return list(white)


def _plane(view: DeviceView, name: str) -> tuple[int, int]:
    if len(view.shape) != 2:
        raise ValueError(f"need {name} of 2 dimensions, got shape {view.shape}")
    return view.shape[0], view.shape[1]


def _picture(view: DeviceView, name: str) -> tuple[int, int]:
    if len(view.shape) != 3 or view.shape[2] != 3:
        raise ValueError(f"need {name} of shape (H, W, 3), got {view.shape}")
    return view.shape[0], view.shape[1]


def _pictures(view: DeviceView, name: str) -> tuple[int, int, int]:
    if len(view.shape) != 4 or view.shape[3] != 3:
        raise ValueError(f"need {name} of shape (n, H, W, 3), got {view.shape}")
    return view.shape[0], view.shape[1], view.shape[2]
