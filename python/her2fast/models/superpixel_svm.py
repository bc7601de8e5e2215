# SPDX-License-Identifier: Apache-2.0
"""Superpixels and a support vector machine in the place of a segmenting network.

A tile's halo is not looked at: superpixels begin and end with the inner tile, whose
grid begins at the slide's origin. So every pixel has one superpixel, whoever reads.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from her2fast.errors import DeviceError, SlideError
from her2fast.kernels.epithelium import (
    FEATURE_ONE,
    SUPERPIXEL_FEATURES,
    superpixel_features,
    superpixel_roots,
    superpixels,
    svm_decision,
)
from her2fast.models.config import SuperpixelSvm
from her2fast.models.package import ModelPackage

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: The logit of the halo, which nobody looks at.
BEYOND = -20.0
MAX_VECTORS = 100_000


@dataclass(frozen=True)
class Machine:
    """A fitted machine.

    Attributes
    ----------
    rule : SuperpixelSvm
        Superpixels, kernel and the line from decision to logit.
    vectors : (m, 234) ndarray of int16
        Support vectors, 0 to 2560.
    coefficients : (m,) ndarray of float64
    """

    rule: SuperpixelSvm
    vectors: npt.NDArray[np.int16]
    coefficients: npt.NDArray[np.float64]

    def decisions(self, features: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
        """(n, 234) features -> (n,) decisions."""
        decisions: npt.NDArray[np.float64] = svm_decision(
            features,
            self.vectors,
            self.coefficients,
            intercept=self.rule.intercept,
            gamma=self.rule.gamma,
        )
        return decisions

    def logits(self, rgb: Bytes) -> Floats:
        """(H, W, 3) pixels, a whole block -> (H, W) logits of epithelium.

        Raises `SlideError` NON_FINITE.
        """
        rule = self.rule
        labels, count = superpixels(
            rgb,
            size_px=rule.size_px,
            compactness=rule.compactness,
            iterations=rule.iterations,
        )
        features = superpixel_roots(superpixel_features(rgb, labels, count))
        decisions = self.decisions(features)
        with np.errstate(over="ignore", invalid="ignore"):
            logits: Floats = (rule.slope * decisions + rule.offset).astype(np.float32)
        if not np.isfinite(logits).all():
            raise SlideError("the support vectors gave no numbers", "NON_FINITE")
        picture: Floats = logits[labels]
        return picture

    def to_bytes(self) -> bytes:
        """The file of support vectors; the same machine gives the same bytes."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in ("vectors", "coefficients"):
                data = io.BytesIO()
                np.save(data, getattr(self, name), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, data.getvalue())
        return out.getvalue()


def read_machine(data: bytes, rule: SuperpixelSvm, place: object) -> Machine:
    """The machine in a file of support vectors.

    Raises `SlideError`: MODEL_SHAPE, and NON_FINITE of coefficients.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            vectors = _array(archive, "vectors", np.int16, (SUPERPIXEL_FEATURES,))
            coefficients = _array(archive, "coefficients", np.float64, ())
        if len(vectors) != len(coefficients):
            raise ValueError(f"{len(coefficients)} coefficients of {len(vectors)}")
    except Exception as error:  # zipfile, zlib and the header's parser raise anything
        raise SlideError(
            f"{place}: holds no support vectors: {type(error).__name__}: {error}",
            "MODEL_SHAPE",
        ) from error
    if not np.isfinite(coefficients).all():
        raise SlideError(f"{place}: coefficients are no numbers", "NON_FINITE")
    if vectors.min() < 0 or vectors.max() > FEATURE_ONE:
        raise SlideError(f"{place}: need vectors of 0 to {FEATURE_ONE}", "MODEL_SHAPE")
    return Machine(rule, vectors, coefficients)


def _array(
    archive: zipfile.ZipFile, name: str, dtype: npt.DTypeLike, row: tuple[int, ...]
) -> npt.NDArray[Any]:
    """An array of 1 to `MAX_VECTORS` rows; its header is asked before it is read."""
    item = np.dtype(dtype)
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name}: NumPy format {version}")
        shape, by_column, found = np.lib.format.read_array_header_1_0(file)
        fits = len(shape) == 1 + len(row) and shape[1:] == row and found == item
        if not (fits and 1 <= shape[0] <= MAX_VECTORS):
            raise ValueError(
                f"need {name} as {item} of {('m', *row)}, m up to {MAX_VECTORS}, got "
                f"{found} {shape}"
            )
        size = math.prod(shape) * item.itemsize
        content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name}: other than the {size} bytes of its header")
    order: Literal["C", "F"] = "F" if by_column else "C"
    return np.array(np.frombuffer(content, item).reshape(shape, order=order), order="C")


class SuperpixelRunner:
    """The machine of a package whose hash was checked, as a segmenter."""

    def __init__(self, package: ModelPackage, device: str = "cpu") -> None:
        """Hashes and parses the same bytes.

        Raises `DeviceError` where it is to run on a GPU, and `SlideError` of a model.
        """
        if device != "cpu":
            raise DeviceError(
                f"{package.folder}: superpixels run on the CPU alone, got {device}"
            )
        data = package.file.read_bytes()
        if hashlib.sha256(data).hexdigest() != package.sha256:
            raise SlideError(
                f"{package.file}: changed since its hash was taken", "MODEL_HASH"
            )
        keys = package.config.her2fast
        assert keys.superpixel_svm is not None
        self.machine = read_machine(data, keys.superpixel_svm, package.file)
        self._halo_px = keys.halo_px

    def run(self, rgb: Bytes) -> Floats:
        """(N, S, S, 3) pixels -> (N, S * S) logits, contiguous. Thread-safe."""
        halo = self._halo_px
        inner = np.s_[halo : rgb.shape[1] - halo, halo : rgb.shape[2] - halo]
        out = np.full(rgb.shape[:3], BEYOND, np.float32)
        for tile, logits in zip(rgb, out, strict=True):
            logits[inner] = self.machine.logits(np.ascontiguousarray(tile[inner]))
        return out.reshape(len(rgb), -1)
