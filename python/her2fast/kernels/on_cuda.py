# SPDX-License-Identifier: Apache-2.0
"""Kernels on arrays that lie on a GPU: shapes checked, outputs made, the twin queued.

One function per stem that has a CUDA twin; their contract is that of the wrapper of the
same name. Nothing is copied and nothing waits (`her2fast.kernels.device_arrays`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from her2fast import _core
from her2fast.kernels.arrays import AnyArray
from her2fast.kernels.device_arrays import DeviceCall, DeviceView

__all__ = ["stain_unmix", "tissue_mask", "tumor_count"]


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
    call = DeviceCall("tissue_mask", device, rgb)
    pixels = call.take(rgb, np.uint8, "rgb")
    height, width = _picture(pixels, "rgb")
    out, address = call.empty((height, width), np.uint8)
    if height and width:
        call.twin(pixels.pointer, 1, height, width, white, address, call.stream)
    return out


def stain_unmix(
    rgb: AnyArray,
    white: Sequence[int],
    stains: list[list[float]],
    device: str | None,
) -> Any:
    """(H, W, 3) uint8 -> (H, W, 3) float32."""
    call = DeviceCall("stain_unmix", device, rgb)
    pixels = call.take(rgb, np.uint8, "rgb")
    height, width = _picture(pixels, "rgb")
    out, address = call.empty((height, width, 3), np.float32)
    if height and width:
        call.twin(pixels.pointer, height * width, white, stains, address, call.stream)
    return out


def _plane(view: DeviceView, name: str) -> tuple[int, int]:
    if len(view.shape) != 2:
        raise ValueError(f"need {name} of 2 dimensions, got shape {view.shape}")
    return view.shape[0], view.shape[1]


def _picture(view: DeviceView, name: str) -> tuple[int, int]:
    if len(view.shape) != 3 or view.shape[2] != 3:
        raise ValueError(f"need {name} of shape (H, W, 3), got {view.shape}")
    return view.shape[0], view.shape[1]
