# SPDX-License-Identifier: Apache-2.0
"""Who decodes a slide's tiles: the CPU, or a GPU by NVIDIA's nvJPEG.

nvJPEG's pixels are near the CPU's, not its bits, so what is measured by it has a key of
its own and says so in its record (docs/guide/gpu.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from her2fast import _core
from her2fast.errors import UsageError

__all__ = ["DECODERS", "TileDecoder", "open_decoder"]

DECODERS = ("cpu", "nvjpeg")

#: File of libnvjpeg; None: looked for (`her2fast.kernels.jpeg.JpegDecoder`).
NVJPEG_LIBRARY: str | None = None


@dataclass(frozen=True)
class TileDecoder:
    """What decodes the tiles that are measured."""

    #: As the record names it: "nvjpeg 13.0.1, engine"; None is the CPU.
    name: str | None = None
    gpu: int = 0
    library: str = ""
    backend: str = "auto"

    def slide(self, core: _core.Slide) -> _core.Slide:
        """The slide whose tiles it decodes; raises `DeviceError` and `SlideError`."""
        if self.name is None:
            return core
        slide: _core.Slide = _core.cuda.NvjpegSlide(
            core, self.gpu, self.library, self.backend
        )
        return slide

    def to_record(self, device: dict[str, Any]) -> dict[str, Any]:
        """The record's `device` with what decodes beside it."""
        return device if self.name is None else {**device, "decoder": self.name}


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
    gpu = int(device.partition(":")[2] or 0)
    found = _core.cuda.JpegDecoder(gpu, NVJPEG_LIBRARY or "", "auto")
    version = ".".join(map(str, found.version))
    return TileDecoder(
        name=f"nvjpeg {version}, {found.backend}",
        gpu=gpu,
        library=found.library,
        backend=found.backend,
    )
