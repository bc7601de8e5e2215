# SPDX-License-Identifier: Apache-2.0
"""Configurations of training: TOML, one model for each stage's whole file.

Defaults are the recipe of Pham et al. (2023), section 3.4 and 3.5. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from her2fast.models.config import MAX_SIDE_PX
from her2fast.training.config_sections import (
    Augment,
    Calibration,
    Compute,
    Data,
    EpitheliumData,
    Focal,
    Histogram,
    MembraneData,
    MembraneLoss,
    MembranePackage,
    MethodPackage,
    Model,
    Optimizer,
    Package,
    Rule,
    Run,
    Section,
    Superpixels,
    Svm,
    Train,
)

STAGES = (
    "segment",
    "pretrain",
    "constrained",
    "calibrate",
    "membrane",
    "epithelium",
)


class Stage(Section):
    """A stage's whole file."""

    #: Whether the stage's loss counts `augment.jpeg_agreement`.
    counts_agreement: ClassVar[bool] = False

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        augment = getattr(self, "augment", None)
        weight = augment.jpeg_agreement if isinstance(augment, Augment) else 0.0
        if weight > 0 and not self.counts_agreement:
            raise ValueError(
                "augment: need no jpeg_agreement, which pretrain alone counts; got "
                f"{weight:g}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, content: Any) -> Any:
        """A table that states some keys keeps the stage's defaults of the others."""
        if not isinstance(content, dict):
            return content
        filled = dict(content)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Section) and isinstance(
                filled.get(name), dict
            ):
                stage = field.default.model_dump(exclude_unset=True)
                filled[name] = {**stage, **filled[name]}
        return filled


class SegmentConfig(Stage):
    """`her2fast train segment`: section 3.4 of the paper."""

    run: Run = Run()
    data: Data
    model: Model = Model(backbone="densenet121")
    optimizer: Optimizer = Optimizer(lr=1e-4)
    train: Train = Train(batch_size=16, balance=["site", "label"])
    loss: Focal = Focal()
    augment: Augment = Augment()
    compute: Compute = Compute()
    package: Package

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.annotations is None:
            raise ValueError("data: need annotations, the folder of drawn tumor")
        return self


class PretrainConfig(Stage):
    """`her2fast train pretrain`: section 3.5.2, the baseline."""

    counts_agreement: ClassVar[bool] = True

    run: Run = Run()
    data: Data
    model: Model = Model(backbone="resnet18")
    optimizer: Optimizer = Optimizer(lr=1e-3)
    train: Train = Train(batch_size=512)
    augment: Augment = Augment()
    compute: Compute = Compute()


class ConstrainedConfig(Stage):
    """`her2fast train constrained`: section 3.5.3, read by P1 to P18."""

    run: Run = Run()
    data: Data
    #: Run folder of `pretrain`, whose best weights are the start.
    start: Path
    optimizer: Optimizer = Optimizer(lr=3e-4)
    train: Train = Train(batch_size=512, epochs=50, patience=0)
    constraints: Rule = Rule()
    augment: Augment = Augment()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train.balance or self.train.samples_per_epoch:
            raise ValueError(
                "train: the constraints choose the patches; need no balance and no "
                "samples_per_epoch"
            )
        if self.data.labels == "soft":
            raise ValueError(
                'data: a constraint needs one label a slide; need labels "label" or '
                '"majority", got "soft"'
            )
        return self


class CalibrateConfig(Stage):
    """`her2fast train calibrate`: section 3.5.4, and the package."""

    run: Run = Run()
    data: Data
    #: Run folder of `pretrain` or `constrained`.
    start: Path
    calibration: Calibration = Calibration()
    compute: Compute = Compute()
    package: MethodPackage

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.labels == "soft":
            raise ValueError(
                'data: calibration needs one label a slide; need labels "label" or '
                '"majority", got "soft"'
            )
        given = self.package.segmenter or self.data.segmenter
        if self.package.segmenter is not None and self.data.segmenter is not None:
            raise ValueError(
                "need the segmenter once: that of [data] goes into the package"
            )
        if given is None and not self.package.tissue_is_tumor:
            raise ValueError(
                "package: need segmenter, because a package without one takes all "
                "tissue of a slide for tumor; if that is meant: tissue_is_tumor = true"
            )
        if given is not None and self.package.tissue_is_tumor:
            raise ValueError("package: need segmenter or tissue_is_tumor, got both")
        return self


class MembraneConfig(Stage):
    """`her2fast train membrane`: Khameneh et al. (2019), section 2.5 and 2.6."""

    run: Run = Run()
    data: MembraneData
    model: Model = Model(backbone="khameneh_unet")
    optimizer: Optimizer = Optimizer(lr=0.01, nesterov=False)
    train: Train = Train(batch_size=2, epochs=50)
    loss: MembraneLoss = MembraneLoss()
    histogram: Histogram = Histogram()
    augment: Augment = Augment()
    compute: Compute = Compute()
    package: MembranePackage

    @model_validator(mode="after")
    def _check(self) -> Self:
        tile_px, halo_px = self.data.tile_px, self.package.halo_px
        wide_px = tile_px + 2 * halo_px
        if wide_px > MAX_SIDE_PX:
            raise ValueError(
                f"need tile_px + 2 * halo_px of at most {MAX_SIDE_PX}, the most "
                f"that a package may have, got {tile_px} + 2 * {halo_px} = {wide_px}"
            )
        return self


class EpitheliumConfig(Stage):
    """`her2fast train epithelium`: Khameneh et al. (2019), section 2.1 to 2.3."""

    run: Run = Run()
    data: EpitheliumData
    superpixels: Superpixels = Superpixels()
    svm: Svm = Svm()
    compute: Compute = Compute()
    package: Package


#: Stages that go through epochs.
EpochConfig = SegmentConfig | PretrainConfig | ConstrainedConfig | MembraneConfig
StageConfig = EpochConfig | CalibrateConfig | EpitheliumConfig
CONFIGS: dict[str, type[StageConfig]] = {
    "segment": SegmentConfig,
    "pretrain": PretrainConfig,
    "constrained": ConstrainedConfig,
    "calibrate": CalibrateConfig,
    "membrane": MembraneConfig,
    "epithelium": EpitheliumConfig,
}
