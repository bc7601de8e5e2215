# SPDX-License-Identifier: Apache-2.0
"""Who decodes a slide's tiles: the CPU, or a GPU by NVIDIA's nvJPEG.

nvJPEG's pixels are near the CPU's, not its bits, so what is measured by it has a key of
its own and says so in its record (docs/guide/gpu.md).
"""

from __future__ import annotations

import threading
from typing import Any

from her2fast import _core
from her2fast.errors import DeviceError, SlideError, UsageError

__all__ = ["DECODERS", "TileDecoder", "open_decoder"]

DECODERS = ("cpu", "nvjpeg")

#: File of libnvjpeg; None: looked for (`her2fast.kernels.jpeg.JpegDecoder`).
NVJPEG_LIBRARY: str | None = None


class TileDecoder:
    """The CPU, for the tiles that are measured."""

    def slide(self, core: _core.Slide) -> _core.Slide:
        """The slide whose tiles it decodes; raises `SlideError`."""
        return core

    def to_record(self, device: dict[str, Any]) -> dict[str, Any]:
        """The record's `device`, with what decodes where it is not the CPU."""
        return device

    def warnings(self, core: _core.Slide) -> list[str]:
        """What a record of a slide of `slide`, read to its end, has to say."""
        return []


class NvjpegDecoder(TileDecoder):
    """nvJPEG on a GPU. Opened by the first slide: runs measure in another process."""

    def __init__(self, gpu: int, library: str) -> None:
        """Asks whether there is one; raises `DeviceError` and `SlideError`."""
        try:
            found = _core.cuda.JpegDecoder(gpu, library, "auto")
        except DeviceError as error:
            raise DeviceError(f"{error}; the decoder cpu needs none") from error
        version = ".".join(map(str, found.version))
        #: As the record names it.
        self.name = f"nvjpeg {version}, {found.backend}"
        self._asked = (gpu, found.library, found.backend)
        self._decoders: Any = None
        self._lock = threading.Lock()

    def slide(self, core: _core.Slide) -> _core.Slide:
        try:
            with self._lock:
                if self._decoders is None:
                    self._decoders = _core.cuda.NvjpegDecoders(*self._asked)
        except DeviceError as error:  # it was there: a fault, not a wrong call
            raise SlideError(str(error), "GPU_LOST") from error
        slide: _core.Slide = _core.cuda.NvjpegSlide(core, self._decoders)
        return slide

    def to_record(self, device: dict[str, Any]) -> dict[str, Any]:
        return {**device, "decoder": self.name}

    def warnings(self, core: Any) -> list[str]:
        counts = core.counts
        if counts["tiles"] == 0:
            return ["nvJPEG decoded none of the tiles; the CPU did"]
        if counts["on_cpu"] > 0:
            # No number: a tile may be decoded twice, as threads meet.
            return ["nvJPEG does not take all of the tiles; the CPU decoded the others"]
        return []


def open_decoder(decoder: str, device: str) -> TileDecoder:
    """The decoder, which is there.

    Parameters
    ----------
    decoder : {"cpu", "nvjpeg"}
    device : str
        Of the models; nvJPEG runs on the same GPU, beside "cpu" on the first one.

    Raises
    ------
    UsageError
        Another decoder.
    DeviceError
        No CUDA library, no GPU or no nvJPEG.
    """
    if decoder not in DECODERS:
        raise UsageError(f"need a decoder of {DECODERS}, got {decoder!r}")
    if decoder == "cpu":
        return TileDecoder()
    return NvjpegDecoder(int(device.partition(":")[2] or 0), NVJPEG_LIBRARY or "")
