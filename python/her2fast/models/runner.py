# SPDX-License-Identifier: Apache-2.0
"""Runs models on batches of pixels; with on_device.py all that imports torch to score.

A batch has one fixed shape and is computed with one intra-op thread; cores are used by
running batches side by side. torch changes bits with batch size and thread count, so
both stand in the record.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from her2fast.errors import DeviceError, SlideError
from her2fast.models.package import ModelPackage

if TYPE_CHECKING:
    import torch

#: Smallest probability whose logarithm is taken, where a model gives probabilities.
MIN_PROBABILITY = 1e-7


class Runner(Protocol):
    """One model on one device; `torch.export` packages can join behind this."""

    def run(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(N, H, W, 3) pixels -> (N, outputs) logits, contiguous. Thread-safe."""
        ...


def check_device(device: str) -> str:
    """The device's full name, "cpu" or "cuda:N"; a device is a promise.

    Raises `DeviceError` where this machine or this torch lacks it.
    """
    if device == "cpu":
        return device
    name, _, index = device.partition(":")
    if name != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f'need device "cpu" or "cuda[:N]", got "{device}"')
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            f"{device}: this machine or this torch ({torch.__version__}) has no CUDA "
            "device; use --device cpu"
        )
    number = int(index or 0)
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"{device}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return f"cuda:{number}"


def describe_device(
    device: str, batches: dict[str, int], pipeline: str | None = None
) -> dict[str, Any]:
    """What near-ties may depend on: device, CPU capability, torch, batch shapes."""
    import torch

    record: dict[str, Any] = {
        "name": device.partition(":")[0],
        "torch": str(torch.__version__),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "batch": dict(sorted(batches.items())),
    }
    if device != "cpu":
        record["model"] = torch.cuda.get_device_name(device)
        record["cuda"] = torch.version.cuda
        record["pipeline"] = pipeline or "torch"
    return record


_setting_lock = threading.Lock()
_thread_users = 0
_threads_before = 1
_precision_users = 0
_precision_before: dict[str, Any] = {}


@contextlib.contextmanager
def one_intra_op_thread(device: str = "cpu") -> Iterator[None]:
    """One intra-op thread while any run is inside; what the host had comes back after.

    torch keeps the number for the process and for each thread, so a model thread also
    calls `use_one_thread`. While a run on a GPU is inside, convolutions there are those
    of float32: torch's default rounds their inputs to 10 bits (TF32).
    """
    global _thread_users, _threads_before
    import torch

    with _setting_lock:
        if _thread_users == 0:
            _threads_before = torch.get_num_threads()
        _thread_users += 1
        torch.set_num_threads(1)
    try:
        with contextlib.nullcontext() if device == "cpu" else _whole_float32():
            yield
    finally:
        with _setting_lock:
            _thread_users -= 1
            if _thread_users == 0:
                torch.set_num_threads(_threads_before)


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Settings of the process, so the last run that leaves restores them."""
    global _precision_users, _precision_before

    with _setting_lock:
        if _precision_users == 0:
            _precision_before = _cudnn_precision()
            _set_cudnn_precision(
                {n: n != "allow_tf32" and "ieee" for n in _precision_before}
            )
        _precision_users += 1
    try:
        yield
    finally:
        with _setting_lock:
            _precision_users -= 1
            if _precision_users == 0:
                _set_cudnn_precision(_precision_before)


def _cudnn_precision() -> dict[str, Any]:
    """How cuDNN computes, by torch's name of the setting; the order is that of setting.

    torch 2.9 has one for convolutions and one for recurrent layers. From then on
    reading the older one is an error unless all three agree: it is left out where a
    host used the newer ones alone, and its setting writes the newer ones.
    """
    import torch

    cudnn: Any = torch.backends.cudnn
    settings: dict[str, Any] = {}
    with contextlib.suppress(RuntimeError):
        settings["allow_tf32"] = cudnn.allow_tf32
    for name in ("conv", "rnn"):
        part: Any = getattr(cudnn, name, None)
        if hasattr(part, "fp32_precision"):
            settings[name] = part.fp32_precision
    return settings


def _set_cudnn_precision(settings: dict[str, Any]) -> None:
    import torch

    cudnn: Any = torch.backends.cudnn
    for name, value in settings.items():
        if name == "allow_tf32":
            cudnn.allow_tf32 = value
        else:
            getattr(cudnn, name).fp32_precision = value


def use_one_thread() -> None:
    """One intra-op thread for the calling thread; see `one_intra_op_thread`."""
    import torch

    torch.set_num_threads(1)


#: How torch says that a GPU's memory is used up. Its allocator raises
#: `torch.cuda.OutOfMemoryError`, of which TorchScript's interpreter keeps the words
#: alone (pytorch/pytorch#148642); the others are CUDA's own and its libraries'.
_OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def _gpu_code(error: BaseException, device: str) -> str | None:
    """GPU_OOM or GPU_LOST where an error is the GPU's."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "GPU_OOM"
    if device == "cpu":
        return None
    text = str(error)
    if any(words in text for words in _OUT_OF_MEMORY):
        return "GPU_OOM"
    # CUDA tells of a fault at the next call, wherever that stands.
    return "GPU_LOST" if "CUDA error" in text else None


@contextlib.contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Torch's errors of a GPU as `SlideError` GPU_OOM and GPU_LOST."""
    try:
        yield
    except RuntimeError as error:
        code = _gpu_code(error, device)
        if code is None:
            raise
        raise SlideError(f"{device}: {_last_line(error)}", code) from error


class TorchScriptRunner:
    """A TorchScript file of a package whose hash was checked."""

    def __init__(self, package: ModelPackage, device: str = "cpu") -> None:
        """Hashes and parses the same bytes; raises `SlideError` of a model or a GPU."""
        import hashlib

        data = package.file.read_bytes()
        if hashlib.sha256(data).hexdigest() != package.sha256:
            raise SlideError(
                f"{package.file}: changed since its hash was taken", "MODEL_HASH"
            )
        self.package = package
        self._device = device
        self._side_px = package.config.patch_size_pixels
        self._module = _load_script(data, package, device)
        self._mean, self._std = package.config.normalization()
        self._local = threading.local()

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device

    @property
    def normalization(
        self,
    ) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of red, green and blue, after division by 255."""
        return _rgb_triple(self._mean), _rgb_triple(self._std)

    def run(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(N, H, W, 3) pixels -> (N, outputs) logits, contiguous. Thread-safe."""
        with device_errors(self._device):
            return self._run(rgb)

    def _run(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            inputs = self._stage(rgb)
            try:
                return self._forward(inputs)
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
            # A smaller batch once (faults.md); bits may differ, as on any GPU.
            try:
                halves = [self._forward(half) for half in inputs.chunk(2)]
            except torch.cuda.OutOfMemoryError as error:
                raise SlideError(
                    f"{self._device}: out of memory with half a batch of "
                    f"{len(rgb)}: close other programs, compute with one worker "
                    "(-n 1) or use --device cpu",
                    "GPU_OOM",
                ) from error
            return np.concatenate(halves)

    def _stage(self, rgb: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalized float32 (N, 3, H, W), channels-last, in this thread's buffer."""
        import torch

        staging: torch.Tensor | None = getattr(self._local, "staging", None)
        if staging is None or tuple(staging.shape) != rgb.shape:
            staging = torch.empty(rgb.shape, dtype=torch.float32)
            self._local.staging = staging
            self._local.mean = torch.tensor(self._mean, dtype=torch.float32)
            self._local.std = torch.tensor(self._std, dtype=torch.float32)
        np.copyto(staging.numpy(), rgb)
        # ToTensor and Normalize as torchvision computes them, so that a WSInfer package
        # sees the numbers it was trained on.
        staging.div_(255).sub_(self._local.mean).div_(self._local.std)
        inputs = staging.permute(0, 3, 1, 2)
        return inputs if self._device == "cpu" else inputs.to(self._device)

    def _forward(self, inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        outputs = self.logits(inputs)
        return np.ascontiguousarray(outputs.reshape(len(inputs), -1).cpu().numpy())

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalized (N, 3, H, W) -> float32 logits, where the inputs lie.

        Raises `SlideError` MODEL_SHAPE or MODEL_CLASSES, `torch.cuda.OutOfMemoryError`,
        and CUDA's other errors as torch has them.
        """
        import torch

        config = self.package.config
        try:
            outputs = self._call(inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, torch.jit.Error) as error:
            code = _gpu_code(error, self._device)
            if code == "GPU_OOM":
                raise torch.cuda.OutOfMemoryError(_last_line(error)) from error
            if code is not None:
                raise
            raise SlideError(
                f"{self.package.file}: the model does not take float32 "
                f"{tuple(inputs.shape)}: {_last_line(error)}",
                "MODEL_SHAPE",
            ) from error
        if not isinstance(outputs, torch.Tensor):
            raise SlideError(
                f"{self.package.file}: need a tensor, got {type(outputs).__name__}",
                "MODEL_SHAPE",
            )
        outputs = self._checked(outputs, len(inputs)).to(torch.float32)
        activation = config.her2fast.activation
        distances = None
        if config.her2fast.distance_names:  # no classes: no activation is theirs
            distances = outputs[:, config.num_classes :]
            outputs = outputs[:, : config.num_classes]
        if activation == "none":
            outputs = outputs.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
            single = config.num_classes == 1
            outputs = outputs.logit() if single else outputs.log()
        if distances is not None:
            outputs = torch.cat((outputs, distances), 1)
        return outputs

    def _call(self, inputs: torch.Tensor) -> Any:
        """The network's answer.

        On a GPU TorchScript would profile the first batches and fuse kernels for those
        that follow, which then round in another way.
        """
        import torch

        if self._device == "cpu":
            return self._module(inputs)
        # The flag is the calling thread's; `torch.jit.fuser` would switch the process.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self._module(inputs)

    def _checked(self, outputs: torch.Tensor, batch: int) -> torch.Tensor:
        config = self.package.config
        shape = tuple(outputs.shape)
        side = self._side_px
        if config.her2fast.task != "classify":
            if config.num_classes == 1 and shape == (batch, side, side):
                return outputs
            need: tuple[int, ...] = (batch, config.num_classes, side, side)
        else:
            need = (batch, config.outputs)
        if len(shape) != len(need):
            code = "MODEL_SHAPE"
        elif shape[1] != need[1]:
            code = "MODEL_CLASSES"
        else:
            code = "MODEL_SHAPE"
        if shape != need:
            raise SlideError(
                f"{self.package.file}: need outputs of shape {need}, got {shape}", code
            )
        return outputs


def open_runner(package: ModelPackage, device: str = "cpu") -> Runner:
    """The runner of a package; the one place that knows the file formats."""
    if package.config.her2fast.superpixel_svm is not None:
        from her2fast.models.superpixel_svm import SuperpixelRunner

        return SuperpixelRunner(package, device)
    return TorchScriptRunner(package, device)


def _load_script(data: bytes, package: ModelPackage, device: str) -> Callable[..., Any]:
    import torch

    with device_errors(device), warnings.catch_warnings():
        # TorchScript is deprecated upstream from 2.9 on; exactly that warning is ours.
        warnings.filterwarnings(
            "ignore",
            message=r"`torch\.jit\.load` is deprecated",
            category=DeprecationWarning,
        )
        try:
            module = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(data), map_location=device
            )
        except (RuntimeError, ValueError) as error:
            if _gpu_code(error, device) is not None:
                raise
            raise SlideError(
                f"{package.file}: is not a TorchScript file: {_last_line(error)}",
                "MODEL_SHAPE",
            ) from error
        module.eval()
        return module.to(  # type: ignore[no-any-return]
            memory_format=torch.channels_last
        )


def _rgb_triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _last_line(error: BaseException) -> str:
    """The last line of torch's long messages, which says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
