# SPDX-License-Identifier: Apache-2.0
"""Superpixels and a support vector machine in the place of a segmenting network.

A tile's halo is not looked at: superpixels begin and end with the inner tile, whose
grid begins at the slide's origin. So every pixel has one superpixel, whoever reads.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass

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
        """(H, W, 3) pixels, a whole block -> (H, W) logits of epithelium."""
        rule = self.rule
        labels, count = superpixels(
            rgb,
            size_px=rule.size_px,
            compactness=rule.compactness,
            iterations=rule.iterations,
        )
        features = superpixel_roots(superpixel_features(rgb, labels, count))
        decisions = self.decisions(features)
        logits: Floats = (rule.slope * decisions + rule.offset).astype(np.float32)
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
    """The machine in a file of support vectors; raises `SlideError` MODEL_SHAPE."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            vectors, coefficients = stored["vectors"], stored["coefficients"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SlideError(
            f"{place}: holds no support vectors: {error}", "MODEL_SHAPE"
        ) from error
    fits = (
        vectors.dtype == np.int16
        and coefficients.dtype == np.float64
        and vectors.ndim == 2
        and vectors.shape[1] == SUPERPIXEL_FEATURES
        and coefficients.shape == (len(vectors),)
        and 1 <= len(vectors) <= MAX_VECTORS
    )
    if not fits:
        raise SlideError(
            f"{place}: need int16 vectors of (m, {SUPERPIXEL_FEATURES}) and m float64 "
            f"coefficients, m up to {MAX_VECTORS}, got {vectors.dtype} {vectors.shape} "
            f"and {coefficients.dtype} {coefficients.shape}",
            "MODEL_SHAPE",
        )
    if not np.isfinite(coefficients).all():
        raise SlideError(f"{place}: coefficients are no numbers", "NON_FINITE")
    if vectors.min() < 0 or vectors.max() > FEATURE_ONE:
        raise SlideError(f"{place}: need vectors of 0 to {FEATURE_ONE}", "MODEL_SHAPE")
    return Machine(rule, vectors, coefficients)


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
