# SPDX-License-Identifier: Apache-2.0
"""The membranes of a picture in memory, found tile by tile as on a slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast.methods.membrane import Finder, halo_of

Bytes = npt.NDArray[np.uint8]


def tiles_with_halo(rgb: Bytes, tile_px: int, halo_px: int) -> Bytes:
    """Tiles from the picture's corner on, each with what lies round it.

    Parameters
    ----------
    rgb : (H, W, 3) ndarray of uint8
    tile_px, halo_px : int
        Of a tile without its halo, and the halo on each side.

    Returns
    -------
    (rows, columns, S, S, 3) ndarray of uint8
        S is tile_px + 2 halo_px; white beyond the picture, as a reader gives it beyond
        a slide.
    """
    height, width = rgb.shape[:2]
    rows, columns = -(-height // tile_px), -(-width // tile_px)
    shape = (rows * tile_px + 2 * halo_px, columns * tile_px + 2 * halo_px, 3)
    wide = np.full(shape, 255, np.uint8)
    wide[halo_px : halo_px + height, halo_px : halo_px + width] = rgb
    side = tile_px + 2 * halo_px
    every = np.lib.stride_tricks.sliding_window_view(wide, (side, side), (0, 1))
    return every[::tile_px, ::tile_px].transpose(0, 1, 3, 4, 2).copy()


def joined(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(rows, columns, S, S) tiles -> the picture of rows S x columns S."""
    rows, columns, side = tiles.shape[:3]
    return np.ascontiguousarray(
        tiles.swapaxes(1, 2).reshape(rows * side, columns * side)
    )


def find_in_picture(
    find: Finder, rgb: Bytes, *, tile_px: int, batch_size: int
) -> Bytes:
    """(H, W, 3) picture at the finder's spacing -> (H, W) mask.

    Batches have one shape and are filled with white, as on a slide: the same pixels
    give the same mask.
    """
    tiles = tiles_with_halo(rgb, tile_px, halo_of(find))
    rows, columns, side = tiles.shape[:3]
    places = [(x * tile_px, y * tile_px) for y in range(rows) for x in range(columns)]
    flat = tiles.reshape(rows * columns, side, side, 3)
    masks = []
    for begin in range(0, len(flat), batch_size):
        part = flat[begin : begin + batch_size]
        batch = np.full((batch_size, side, side, 3), 255, np.uint8)
        batch[: len(part)] = part
        masks.append(find(batch, places[begin : begin + len(part)])[: len(part)])
    whole = joined(np.concatenate(masks).reshape(rows, columns, tile_px, tile_px))
    return np.ascontiguousarray(whole[: rgb.shape[0], : rgb.shape[1]].astype(np.uint8))
