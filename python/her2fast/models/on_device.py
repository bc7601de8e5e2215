# SPDX-License-Identifier: Apache-2.0
"""Models of a package on an NVIDIA GPU: pixels go up as uint8, results come back.

The native ring (`_core.DeviceRing`, csrc/session/device_ring.cpp) copies a batch from
pinned memory, normalizes it there and calls back for the model, whose inputs and
outputs lie in the ring's memory; tumor is cut and counted there, too. Nothing waits
but for batches whose results are read, while others are under way.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from her2fast import _core
from her2fast.models.package import ModelPackage
from her2fast.models.runner import Runner, TorchScriptRunner, device_errors

if TYPE_CHECKING:
    import torch

#: Batches of a thread that are on their way at once: one is copied and computed while
#: the other's results are read.
BATCHES_IN_FLIGHT = 2
#: Threads that drive a GPU. They share it; what they do side by side is the host's part
#: (masks packed, patches cut), and torch's launches, which take the interpreter's lock.
MOST_THREADS = 4

#: DLPack's type of device, and its number.
_DLPACK_CUDA = 2


class Place(Protocol):
    """How torch sees the ring's memory and streams; stood in for without a GPU."""

    def tensor(self, pointer: int, shape: Sequence[int]) -> torch.Tensor:
        """Contiguous float32 where it lies; the ring keeps it."""
        ...

    def stream(self, pointer: int) -> AbstractContextManager[object]:
        """What is queued within goes to this stream."""
        ...

    def free_memory(self) -> None:
        """Gives back what torch keeps and nobody uses."""
        ...


def tensor_at(device: tuple[int, int], pointer: int, shape: Sequence[int]) -> Any:
    """A contiguous float32 tensor over memory of a DLPack device."""
    import torch.utils.dlpack

    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    capsule = _core.make_dlpack(
        pointer, list(shape), strides, "<f4", device, None, False
    )
    return torch.utils.dlpack.from_dlpack(capsule)


class CudaPlace:
    """Memory and streams of one GPU for torch."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.number = int(device.partition(":")[2] or 0)

    def tensor(self, pointer: int, shape: Sequence[int]) -> torch.Tensor:
        """Where the ring has it."""
        view: torch.Tensor = tensor_at((_DLPACK_CUDA, self.number), pointer, shape)
        return view

    def stream(self, pointer: int) -> AbstractContextManager[object]:
        """The ring's stream as torch's current one; torch's allocator keeps to it."""
        import torch

        outside = torch.cuda.ExternalStream(  # type: ignore[no-untyped-call]
            pointer, device=self._device
        )
        return torch.cuda.stream(outside)

    def wait(self) -> None:
        """For everything that torch has queued on the GPU."""
        import torch

        torch.cuda.synchronize(self._device)

    def free_memory(self) -> None:
        """Torch's cache goes back to the GPU."""
        import torch

        torch.cuda.empty_cache()


class DeviceModels:
    """Models that rings call; thread-safe. Rings and pinned memory serve all sessions.

    Parameters
    ----------
    runners : sequence of TorchScriptRunner
        In the order of the session's models, on the device.
    number : int
        Of the GPU.
    place : Place
    """

    def __init__(
        self, runners: Sequence[TorchScriptRunner], number: int, place: Place
    ) -> None:
        """Raises `DeviceError` where no ring can be made."""
        self._runners = list(runners)
        self._number = number
        self._place = place
        self._lock = threading.Lock()
        self._rings = [self._make_ring()]
        self.memory: _core.BatchMemory = _core.pinned_memory()

    def run(self, session: _core.PatchSession, *, wait: bool) -> int:
        """Computes batches until none is ready, or none will come; returns how many.

        Raises `SlideError`: a model's code, GPU_OOM, GPU_LOST, the session's.
        """
        with self._ring() as ring:
            return ring.run(session, self._compute, self._place.free_memory, wait)

    def _make_ring(self) -> _core.DeviceRing:
        return _core.DeviceRing(
            [runner.normalization for runner in self._runners],
            self._number,
            BATCHES_IN_FLIGHT,
        )

    @contextlib.contextmanager
    def _ring(self) -> Iterator[_core.DeviceRing]:
        with self._lock:
            ring = self._rings.pop() if self._rings else self._make_ring()
        try:
            yield ring
        finally:
            # One that is halved stays so: the GPU has not grown. After a failure
            # nothing is in flight, and a lost GPU says so again.
            with self._lock:
                self._rings.append(ring)

    def _compute(
        self,
        model: int,
        n: int,
        height_px: int,
        width_px: int,
        inputs: int,
        outputs: int,
        width: int,
        stream: int,
    ) -> bool:
        """Queues a model; False where memory did not suffice."""
        import torch

        runner = self._runners[model]
        with device_errors(runner.device):
            try:
                with torch.inference_mode(), self._place.stream(stream):
                    pixels = self._place.tensor(inputs, (n, 3, height_px, width_px))
                    # The weights' layout, as on the CPU; torch would turn it by itself.
                    logits = runner.logits(
                        pixels.contiguous(memory_format=torch.channels_last)
                    )
                    self._place.tensor(outputs, (n, width)).copy_(logits.reshape(n, -1))
            except torch.cuda.OutOfMemoryError:
                return False
        return True


def pipeline_of(models: Sequence[ModelPackage], device: str) -> str | None:
    """What moves pixels and counts on a GPU, for the record: None on the CPU.

    "her2fast_cuda" needs the CUDA library, and models that torch runs; else "torch"
    copies and normalizes alone. Raises `DeviceError` where the library is of another
    version, or not where it was said to be.
    """
    if device == "cpu":
        return None
    if any(model.config.her2fast.superpixel_svm is not None for model in models):
        return "torch"
    return "her2fast_cuda" if _core.cuda.has_library() else "torch"


def open_on_device(
    models: Sequence[ModelPackage], runners: Sequence[Runner], device: str
) -> DeviceModels | None:
    """The runners behind rings, where `pipeline_of` says so."""
    if pipeline_of(models, device) != "her2fast_cuda":
        return None
    opened = [runner for runner in runners if isinstance(runner, TorchScriptRunner)]
    place = CudaPlace(device)
    place.wait()  # the rings' streams know nothing of the one that brought the weights
    return DeviceModels(opened, place.number, place)
