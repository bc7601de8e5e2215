# SPDX-License-Identifier: Apache-2.0
"""A session for hosts that bring their own pixels: requests answered by pushes.

The host asks what is `wanted`, pushes pixels in any order, drives the models between
(`run_models`) and finishes; `her2fast.decide` turns the measurement into a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from her2fast.errors import UsageError
from her2fast.kernels import arrays
from her2fast.kernels.arrays import AnyArray, as_bytes
from her2fast.measure import Models, end_session
from her2fast.methods.patches import patch_session
from her2fast.models.package import MethodPackage, load_package
from her2fast.models.runner import one_intra_op_thread
from her2fast.record import empty_slide, provenance
from her2fast.scoring import Measurement

if TYPE_CHECKING:
    from her2fast import _core

#: Reading mode of pixels that a host pushed.
PUSHED = "pushed"


class Session:
    """Measures one slide from pushed pixels.

    Parameters
    ----------
    model : str, Path or MethodPackage, optional
        Name of a shipped package or a package's folder.
    extent_px : (int, int)
        Width and height of level 0.
    level0_spacing_um : (float, float)
        Spacing of level 0 along x and y, um/px.
    white_rgb : (int, int, int), optional
        Color of empty glass; 255 each where not given.
    device : str
        "cpu" or "cuda[:N]".

    Examples
    --------
    >>> session = Session(extent_px=(9, 9), level0_spacing_um=(1, 1))  # doctest: +SKIP
    >>> for request in session.wanted(64):  # doctest: +SKIP
    ...     session.push(request.id, rgb, "ok")
    >>> session.run_models()  # doctest: +SKIP
    >>> her2fast.decide(session.finish()).status  # doctest: +SKIP
    'indeterminate'
    """

    def __init__(
        self,
        model: str | Path | MethodPackage | None = None,
        *,
        extent_px: tuple[int, int],
        level0_spacing_um: tuple[float, float],
        white_rgb: tuple[int, int, int] | None = None,
        device: str = "cpu",
        batch_size: int | None = None,
        slide_name: str | None = None,
        allow_unknown_model: bool = False,
    ) -> None:
        """Raises `UsageError`, `DeviceError`, `SlideError` with a model's code."""
        package = model if isinstance(model, MethodPackage) else load_package(model)
        if not allow_unknown_model:
            package.require_known()
        self._models = Models(package, device)
        self._core = patch_session(
            package,
            size_px=extent_px,
            slide_spacing_um=level0_spacing_um,
            white_rgb=white_rgb,
            in_flight=batch_size,
            memory=self._models.memory,
        )
        self._source = provenance(
            package,
            slide={
                **empty_slide(slide_name),
                "size_px": list(extent_px),
                "spacing_um": [float(s) for s in level0_spacing_um],
                "spacing_source": "user",
            },
            device=self._models.describe(),
            reading_mode=PUSHED,
        )

    def wanted(self, max_requests: int) -> list[_core.ReadRequest]:
        """Up to `max_requests` new requests; empty where nothing may be asked for now.

        A request covers `width_px` x `height_px` px from (`x_px`, `y_px`) on the grid
        of `spacing_um`, anchored at the slide's origin; what lies outside is white.
        """
        return self._core.wanted(max_requests)

    def push(self, request_id: int, rgb: AnyArray | None, status: str = "ok") -> None:
        """Answers a request; `rgb` is (height, width, 3), or None where unreadable.

        `status` is "ok", "warned" (decoded with warnings), "corrupt" or "missing". The
        pixels are uint8 on the host, of any library, also part of a larger image; they
        are read during the call only. Raises `ArrayError` and `ValueError`.
        """
        if rgb is not None:
            rgb = as_bytes(rgb, "rgb")
        self._core.push(request_id, rgb, status)

    def next_batch(self) -> _core.Batch | None:
        """A batch for models that the host runs itself; None where none is ready.

        `batch.rgb` is (N, H, W, 3) uint8, read-only, the last batch padded with zeros;
        `valid` of them count. It lies in the session, until `put`, and is exchanged
        without a copy: ``torch.from_dlpack(batch)``. `model` counts the package's
        models from 0. Any number of threads may ask. What is left at `finish` is
        computed by the package's own models.
        """
        return self._core.next_batch()

    def put(self, batch_id: int, output: AnyArray) -> None:
        """The logits of a batch, (N, outputs) float32 on the host, of any library.

        Raises `ArrayError`, `ValueError`, and `SlideError` NON_FINITE.
        """
        self._core.put(batch_id, arrays.host(output, np.float32, "output"))

    def run_models(self) -> int:
        """Computes every batch that is ready; returns how many.

        Whatever it raises has ended the session: batches under way are lost.
        """
        with one_intra_op_thread(self._models.device):
            try:
                return self._models.compute(self._core, wait=False)
            except BaseException as error:
                end_session(self._core, error)
                raise

    def cancel(self) -> None:
        """Ends the session; `finish` then raises `SlideError` CANCELLED."""
        self._core.cancel()

    def finish(self) -> Measurement:
        """The measurement; what stayed unanswered counts as missing."""
        self.run_models()
        try:
            core = self._core.finish()
        except RuntimeError:
            # Half-filled batches waited for requests that are now missing.
            if self.run_models() == 0:
                raise
            core = self._core.finish()
        core.key = self._source.measurement_key or ""
        return Measurement(core, self._source)


__all__ = ["Session", "UsageError"]
