# SPDX-License-Identifier: Apache-2.0
"""Constrained weak supervision (Pham et al., 2022) and plain patch classification.

With a segmenter, patches of tumor are classified; without one, tissue counts as tumor.
"""

from __future__ import annotations

from her2fast import _core
from her2fast.models.package import MethodPackage

#: Bytes of open requests and batches, whatever the slide.
DEFAULT_OPEN_BYTES = 256 << 20
MIN_OPEN_BYTES = 32 << 20
MAX_OPEN_BYTES = 512 << 20


def open_bytes(package: MethodPackage, in_flight: int | None) -> int:
    """Memory for `in_flight` patches; bounds what is open, never a batch's shape."""
    if in_flight is None:
        return DEFAULT_OPEN_BYTES
    # A tile in flight is its pixels with halo and the patches cut from it.
    tile_px = package.tile_px + 2 * package.halo_px
    per_tile = 2 * tile_px * tile_px * 3
    patches = (package.tile_px // package.patch_px) ** 2
    wanted = per_tile * (in_flight // patches + 1)
    return min(MAX_OPEN_BYTES, max(MIN_OPEN_BYTES, wanted))


def patch_session(
    package: MethodPackage,
    *,
    size_px: tuple[int, int],
    slide_spacing_um: tuple[float, float],
    white_rgb: tuple[int, int, int] | None = None,
    in_flight: int | None = None,
    memory: _core.BatchMemory | None = None,
) -> _core.PatchSession:
    """The native session that measures one slide with `package`.

    Its batches lie in `memory`, if given.
    """
    segment = package.segment
    return _core.PatchSession(
        size_px,
        slide_spacing_um,
        spacing_um=package.spacing_um,
        patch_px=package.patch_px,
        tile_px=package.tile_px,
        halo_px=package.halo_px,
        class_names=package.class_names,
        classify_batch=package.classify.batch_size,
        has_segmenter=segment is not None,
        segment_batch=segment.batch_size if segment else 1,
        segment_channels=segment.config.num_classes if segment else 1,
        white_rgb=white_rgb or (255, 255, 255),
        max_open_bytes=open_bytes(package, in_flight),
        distance_names=package.distance_names,
        memory=memory,
    )
