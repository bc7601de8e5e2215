# SPDX-License-Identifier: Apache-2.0
"""What `config.json` and `method.json` may say (docs/guide/models.md).

`config.json` is a superset of the WSInfer model configuration; our keys stand under
`her2fast`. Everything is checked here, so that nothing downstream checks again.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from her2fast import _core

#: Layout version of a package; part of every measurement's key.
PACKAGE_LAYOUT_VERSION = 1
#: Items a batch where the package does not say: one fixed shape on every machine.
DEFAULT_BATCH_SIZE = {"classify": 32, "segment": 8, "membrane": 4}
#: Side of the inner tile, and what a segmenter sees beyond it (docs/design).
DEFAULT_TILE_PX = 256
DEFAULT_HALO_PX = 32

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: Longest side of what a model is given, with its halo.
MAX_SIDE_PX = 4096
SidePx = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
DistanceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
#: A distance is stored in 32 bits with 16 of fraction.
Cut = Annotated[float, Field(gt=0, le=32767, allow_inf_nan=False)]


class TransformStep(BaseModel):
    """One step of a WSInfer `transform`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    arguments: dict[str, Any] | None = None


class SuperpixelSvm(BaseModel):
    """A segmenter that is no network: superpixels and a support vector machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    #: Of the superpixels (csrc/include/her2fast/superpixels.h).
    size_px: Annotated[int, Field(ge=2, le=64)]
    compactness: Annotated[float, Field(ge=0.01, le=1000.0)]
    iterations: Annotated[int, Field(ge=1, le=100)]
    #: Of the kernel, for features as whole numbers.
    gamma: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
    intercept: Annotated[float, Field(allow_inf_nan=False)]
    #: A decision as a logit (Platt): slope * decision + offset.
    slope: Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]
    offset: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class Her2fastKeys(BaseModel):
    """Our keys of `config.json`; a bare WSInfer package has none of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    #: "segment": tumor per pixel. "membrane": stained membrane per pixel, and where
    #: there are two outputs, its edge.
    task: Literal["classify", "segment", "membrane"] = "classify"
    #: The function that turns the model's outputs into probabilities. "softmax" and
    #: "sigmoid": the outputs are logits. "none": they are probabilities already.
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    input_layout: Literal["NCHW"] = "NCHW"
    #: What a segmenter or a membrane network sees beyond its tile on each side.
    halo_px: Annotated[int, Field(ge=0, le=1024)] = DEFAULT_HALO_PX
    dtype: Literal["float32"] = "float32"
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    #: What the outputs after the classes are: distances from the training data
    #: (docs/design/domain.md). Most packages give none.
    distance_names: Annotated[list[DistanceName], Field(max_length=16)] = []
    #: Where this stands, the model file holds support vectors.
    superpixel_svm: SuperpixelSvm | None = None
    sha256: Sha256 | None = None
    licence: str = ""
    training_data: str = ""
    intended_use: str = ""
    synthetic: bool = False


class ModelConfig(BaseModel):
    """`config.json`: the WSInfer model configuration and ours."""

    model_config = ConfigDict(extra="allow", frozen=True)
    spec_version: str = "1.0"
    architecture: str = ""
    num_classes: Annotated[int, Field(ge=1, le=1000)]
    class_names: list[Annotated[str, Field(min_length=1, max_length=200)]]
    patch_size_pixels: SidePx
    spacing_um_px: Annotated[float, Field(ge=_core.SPACING_LIMITS_UM[0], le=100.0)]
    transform: list[TransformStep] = []
    her2fast: Her2fastKeys = Her2fastKeys()

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if len(self.class_names) != self.num_classes:
            raise ValueError(
                f"need num_classes={self.num_classes} class_names, "
                f"got {len(self.class_names)}"
            )
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"need distinct class_names, got {self.class_names}")
        if self.her2fast.task == "segment" and self.num_classes > 2:
            raise ValueError(
                "need 1 or 2 output channels of a segmenter (tumor; background and "
                f"tumor), got num_classes={self.num_classes}"
            )
        if self.her2fast.task == "membrane" and self.num_classes > 2:
            raise ValueError(
                "need 1 or 2 output channels of membranes (membrane; membrane and "
                f"edge), got num_classes={self.num_classes}"
            )
        if self.her2fast.task == "membrane":
            self._check_halo()
        if self.her2fast.superpixel_svm is not None:
            self._check_superpixels()
        distances = self.her2fast.distance_names
        if distances and self.her2fast.task != "classify":
            raise ValueError(f"need no distance_names of a segmenter, got {distances}")
        if len(set(distances)) != len(distances):
            raise ValueError(f"need distinct distance_names, got {distances}")
        self.normalization()
        return self

    def _check_superpixels(self) -> None:
        keys = self.her2fast
        if keys.task != "segment" or self.num_classes != 1:
            raise ValueError("need a segmenter of one class with superpixel_svm")
        self._check_halo()
        if self.transform:
            raise ValueError("need no transform with superpixel_svm: it sees pixels")

    def _check_halo(self) -> None:
        halo_px = self.her2fast.halo_px
        if self.patch_size_pixels <= 2 * halo_px:
            raise ValueError(
                f"need patch_size_pixels larger than twice halo_px={halo_px}, got "
                f"{self.patch_size_pixels}"
            )

    @property
    def outputs(self) -> int:
        """Values a classifier gives per patch: classes, then distances."""
        return self.num_classes + len(self.her2fast.distance_names)

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, after division by 255."""
        mean: tuple[float, ...] = (0.0, 0.0, 0.0)
        std: tuple[float, ...] = (1.0, 1.0, 1.0)
        to_tensor = normalized = False
        for step in self.transform:
            arguments = step.arguments or {}
            if step.name == "ToTensor":
                to_tensor = True
            elif step.name == "Normalize":
                if not to_tensor or normalized:
                    raise ValueError("need one Normalize after ToTensor")
                mean = _three(arguments, "mean")
                std = _three(arguments, "std")
                if min(std) <= 0:
                    raise ValueError(f"need std > 0, got {list(std)}")
                normalized = True
            elif step.name == "Resize":
                size = arguments.get("size")
                sides = size if isinstance(size, list) else [size]
                if any(side != self.patch_size_pixels for side in sides):
                    raise ValueError(
                        f"need patches that are not resized, got Resize to {size} of "
                        f"{self.patch_size_pixels} px patches: state patch_size_pixels="
                        f"{size} and the spacing_um_px that covers the same tissue"
                    )
            else:
                raise ValueError(
                    f"need transforms of ToTensor, Normalize, Resize, got {step.name!r}"
                )
        return mean, std


class MethodModels(BaseModel):
    """Folders of the model packages inside a method package."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    classify: str
    segment: str | None = None

    @field_validator("classify", "segment")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and (
            not value or value.startswith((".", "/")) or {"/", "\\", "\0"} & set(value)
        ):
            raise ValueError(f"need the name of a folder beside it, got {value!r}")
        return value


class Calibration(BaseModel):
    """One factor and one offset per class, on the logits; empty is the identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    scale: list[float] = []
    bias: list[float] = []

    @field_validator("scale", "bias")
    @classmethod
    def _finite(cls, value: list[float]) -> list[float]:
        if any(not math.isfinite(v) or abs(v) > 1000 for v in value):
            raise ValueError(f"need finite factors of at most 1000, got {value}")
        return value


class Domain(BaseModel):
    """How far from its training data a package trusts itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    #: Per distance of the classifier: a patch beyond any lies outside.
    cuts: Annotated[dict[DistanceName, Cut], Field(min_length=1)]
    #: More of the kept tumor outside sets OUT_OF_DOMAIN.
    max_share: Annotated[float, Field(ge=0, le=1)]
    #: What the training data looked like, for readers; decides nothing.
    statistics: dict[str, Any] = {}


class MethodConfig(BaseModel):
    """`method.json`: what a method package is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    spec_version: Literal["1.0"] = "1.0"
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    method: Literal["constrained", "patches"] = "constrained"
    models: MethodModels
    tile_px: SidePx | None = None
    calibration: Calibration = Calibration()
    guideline: str | None = None
    floor_percent: Annotated[int, Field(ge=0, le=100)] = 1
    stain: Literal["h-dab"] | None = None
    domain: Domain | None = None
    synthetic: bool = False
    intended_use: str = ""
    description: str = ""


def _three(arguments: dict[str, Any], key: str) -> tuple[float, ...]:
    values = arguments.get(key)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    ):
        raise ValueError(f"need Normalize {key} of 3 numbers, got {values!r}")
    return tuple(float(v) for v in values)
