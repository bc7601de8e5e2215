# SPDX-License-Identifier: Apache-2.0
"""Batches of JPEG tiles as pixels: on the CPU, and by nvJPEG on a GPU.

Scoring reads slides by the CPU's decoder unless told otherwise. NVIDIA's pixels are not
libjpeg-turbo's; whether near enough no GPU has shown yet (docs/guide/gpu.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.kernels.arrays import AnyArray
from her2fast.kernels.device_arrays import DeviceCall

__all__ = ["JpegDecoder", "jpeg_decode"]


def jpeg_decode(
    streams: Sequence[bytes],
    *,
    height_px: int,
    width_px: int,
    tables: bytes = b"",
    rgb: bool = False,
) -> npt.NDArray[np.uint8]:
    """Decode JPEG streams of one size as slides are read: libjpeg-turbo, one thread.

    Parameters
    ----------
    streams : sequence of bytes
        Each one image of 3 components, whole or abbreviated.
    height_px, width_px : int
        What every stream must hold, 1 to 65500.
    tables : bytes
        An abbreviated stream of the tables that they share (TIFF's JPEGTables).
    rgb : bool
        RGB-coded (TIFF's photometric 2); otherwise YCbCr. What a stream says of itself
        does not count.

    Returns
    -------
    (n, height_px, width_px, 3) array of uint8
        RGB.

    Raises
    ------
    ValueError
        A size is wrong, or a stream is damaged, of another size or kind (which is named
        by its number).

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (8, 8), (200, 90, 20)).save(file, "jpeg", quality=95)
    >>> jpeg_decode([file.getvalue()], height_px=8, width_px=8).shape
    (1, 8, 8, 3)
    """
    return _core.jpeg_decode(list(streams), tables, height_px, width_px, rgb)


class JpegDecoder:
    """nvJPEG on a GPU, opened here and not before; keep it, and one per thread.

    Parameters
    ----------
    device : int
        Number of the GPU.
    library : str, optional
        File of libnvjpeg (12.1 or newer). If not given it is looked for in the package
        ``nvidia-nvjpeg`` beside this one, where the loader looks, in /usr/local/cuda.
    backend : {"auto", "engine", "kernels"}
        The GPU's JPEG engine, CUDA kernels, or the engine where there is one.

    Attributes
    ----------
    backend : str
        Which decodes: "engine" or "kernels". Their pixels may differ.
    library : str
    version : tuple of three int
    device : int

    Raises
    ------
    her2fast.errors.DeviceError
        No CUDA library, no GPU, no nvJPEG, or no engine where it was asked for.
    her2fast.errors.SlideError
        GPU_OOM, GPU_LOST.
    ValueError
        Another backend.
    """

    def __init__(
        self, *, device: int = 0, library: str | None = None, backend: str = "auto"
    ) -> None:
        self._decoder = _core.cuda.JpegDecoder(device, library or "", backend)
        self.backend: str = self._decoder.backend
        self.library: str = self._decoder.library
        self.version: tuple[int, int, int] = self._decoder.version
        self.device: int = self._decoder.device

    def decode(
        self,
        streams: Sequence[bytes],
        *,
        out: AnyArray,
        tables: bytes = b"",
        rgb: bool = False,
    ) -> Any:
        """Queue a batch on the caller's current stream, into an array on the GPU.

        Waits for this decoder's batch before and, on the engine, for what is queued on
        the stream; never for an item. The streams' bytes are free when it returns.

        Parameters
        ----------
        streams, tables, rgb
            As `jpeg_decode`, with baseline JPEG of 4:4:4, 4:2:2, 4:4:0 or 4:2:0 alone;
            RGB-coded streams are refused.
        out : (n, height, width, 3) array of uint8
            Of torch, CuPy or another library, on this decoder's GPU; its shape says
            what the streams must hold.

        Returns
        -------
        array
            `out`. Its content is undefined after an error.

        Raises
        ------
        ValueError
            The shape, or a stream of another kind or size, or damaged in its header;
            names the item. Damage within coded bytes may give pixels and no error.
        her2fast.errors.ArrayError
            `out` is not uint8, or cannot be written where it lies (a TypeError).
        her2fast.errors.SlideError
            GPU_OOM, GPU_LOST.
        """
        call = DeviceCall("jpeg_decode", None, out)
        pixels = call.take(out, np.uint8, "out")
        shape = pixels.shape
        if len(shape) != 4 or shape[3] != 3 or shape[0] != len(streams):
            raise ValueError(
                f"need out of shape ({len(streams)}, H, W, 3), got {shape}"
            )
        call.twin(
            self._decoder,
            list(streams),
            tables,
            shape[1],
            shape[2],
            rgb,
            pixels.pointer,
            call.stream,
        )
        return out
