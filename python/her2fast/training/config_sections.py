# SPDX-License-Identifier: Apache-2.0
"""Tables of a training configuration, checked before anything is read or trained.

Defaults are the recipe of Pham et al. (2023), section 3.4 and 3.5. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from her2fast.kernels.epithelium import SUPERPIXEL_RULE

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0, le=1.0)]
Three = tuple[float, float, float]
Cost = Annotated[float, Field(gt=0.0, le=1e6)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Balance = Literal["site", "scanner", "label"]
#: Settings of data that decide what is cut from a slide; the cache is keyed by them.
PATCH_PX = 64
TILE_PX = 256
HALO_PX = 32
#: What a membrane network sees beyond its tile on each side (docs/design/membranes.md).
MEMBRANE_HALO_PX = 32


class Section(BaseModel):
    """A table of the file; a key that is not here is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Section):
    """`[run]`."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0


class Data(Section):
    """`[data]`: which slides, and what of them."""

    manifest: Path
    #: Of `her2fast train splits`; without it the manifest's column `split`.
    splits: Path | None = None
    fold: Annotated[int, Field(ge=0, le=1000)] = 0
    #: Folder of <slide>.geojson or <slide>.png: the tumor, drawn.
    annotations: Path | None = None
    #: Segmenter (model or method package) whose mask is the tumor.
    segmenter: Path | None = None
    cache: Path
    #: "label" is the column; "majority" and "soft" come from reader_1 ...
    labels: Literal["label", "majority", "soft"] = "label"
    spacing_um: Annotated[float, Field(ge=0.08, le=10.0)] = 1.0
    reading: Literal["scaled", "exact", "level0"] = "scaled"
    #: At most so many patches of a slide, drawn once; 0 is all.
    max_patches: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    #: What a damaged slide or one without tumor does.
    bad_slides: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _one_source_of_tumor(self) -> Self:
        if self.annotations is not None and self.segmenter is not None:
            raise ValueError("need annotations or segmenter, got both")
        return self


class MembraneData(Data):
    """`[data]` of membranes: masks of stained membrane, and a finer spacing."""

    #: At 1 um/px a faint membrane of 0.64 um is not resolved.
    spacing_um: Annotated[float, Field(ge=0.1, le=0.5)] = 0.25
    tile_px: Annotated[int, Field(ge=32, le=4096, multiple_of=16)] = 512

    @model_validator(mode="after")
    def _nothing_of_tumor(self) -> Self:
        for name in ("segmenter", "labels", "max_patches"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"need no {name}: membranes are trained on masks")
        return self


class EpitheliumData(Data):
    """`[data]` of epithelium: drawn areas, as of the segmenter."""

    @model_validator(mode="after")
    def _drawn_alone(self) -> Self:
        if self.annotations is None:
            raise ValueError("need annotations, the folder of drawn epithelium")
        for name in ("labels", "max_patches"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"need no {name}: epithelium is trained on drawings")
        return self


class Model(Section):
    """`[model]`: "tiny", "resnet18", "densenet121", "timm:NAME", "package:factory"."""

    backbone: Annotated[str, Field(min_length=1, max_length=200)]
    #: File of ImageNet weights (.safetensors, .pth), or "hub"; none: random.
    weights: str | None = None
    mean: Three | None = None
    std: Three | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("need both mean and std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"need std > 0, got {list(self.std)}")
        return self


class Optimizer(Section):
    """`[optimizer]`."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0.0, le=10.0)]
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    #: Largest norm of the gradient; 0 is no limit.
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0.0:
            raise ValueError("need momentum > 0 with nesterov, got momentum=0")
        return self


class Train(Section):
    """`[train]`."""

    epochs: Count = 100
    batch_size: Count
    #: Epochs without a better figure on the validation set; 0 never stops early.
    patience: Annotated[int, Field(ge=0, le=100_000)] = 20
    #: Drawn each epoch; 0 is as many as there are.
    samples_per_epoch: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    #: Groups that are drawn equally often.
    balance: list[Balance] = []

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.balance)) != len(self.balance):
            raise ValueError(f"need distinct names in balance, got {self.balance}")
        return self


class Augment(Section):
    """`[augment]`: the paper's; 0 or false switches one off."""

    flips: bool = True
    rotations: bool = True
    brightness: Strength = 0.15
    contrast: Strength = 0.15
    saturation: Strength = 0.1
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.02
    blur_share: Share = 0.2
    blur_sigma_px: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    #: Items that share one drawing of colors and blur; flips are drawn for each.
    group: Count = 8
    #: Other stains and scanners by Beer and Lambert (looks.py); needs SciPy.
    looks: bool = False
    #: Share of the pictures that is compressed as scanners do (coding.py).
    jpeg_share: Share = 0.0
    #: Weight, in pretraining, of how much a picture coded in two ways disagrees.
    jpeg_agreement: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.jpeg_agreement > 0 and self.jpeg_share == 0:
            raise ValueError("need jpeg_share > 0 with jpeg_agreement, got 0")
        return self


class Focal(Section):
    """`[loss]` of the segmenter."""

    #: Weight of tumor; "balanced" is 1 - tumor's share of the training pixels.
    alpha: Fraction | Literal["balanced"] = "balanced"
    gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0


class MembraneLoss(Section):
    """`[loss]` of membranes: Eq. 1 to 3 of Khameneh et al., read by K1, K2, K5."""

    #: Weight of membrane; "balanced" is the share of background among the pixels.
    beta: Fraction | Literal["balanced"] = "balanced"
    #: Lambda: weight of the edges' Dice.
    edge_weight: Annotated[float, Field(ge=0.0, le=100.0)] = 1.1
    #: Width of the edge map, odd.
    edge_px: Annotated[int, Field(ge=1, le=15)] = 3

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.edge_px % 2 == 0:
            raise ValueError(f"need an odd edge_px, got {self.edge_px}")
        return self


class Histogram(Section):
    """`[histogram]`: tiles are given the colors of a reference, as the paper does."""

    #: A picture (PNG, JPEG); none: tiles stay as they are.
    reference: Path | None = None


class Superpixels(Section):
    """`[superpixels]`: SLIC; at 1 um/px a superpixel is about as wide as two nuclei."""

    size_px: Annotated[int, Field(ge=2, le=64)] = int(SUPERPIXEL_RULE["size_px"])
    compactness: Annotated[float, Field(ge=0.01, le=1000.0)] = SUPERPIXEL_RULE[
        "compactness"
    ]
    iterations: Annotated[int, Field(ge=1, le=100)] = int(SUPERPIXEL_RULE["iterations"])


class Svm(Section):
    """`[svm]`: the RBF kernel, and what it is trained on."""

    #: The paper's, of features that are `scale` times the root of a share.
    sigma: Annotated[float, Field(gt=0.0, le=1e4)] = 6.0
    scale: Annotated[float, Field(gt=0.0, le=1e4)] = 2.0
    #: The penalties that are tried; the best on the validation slides is kept.
    cost: Annotated[list[Cost], Field(min_length=1)] = [10.0, 100.0, 1000.0]
    #: At most so many, half of each kind: they bound the time of training and scoring.
    max_superpixels: Annotated[int, Field(ge=2, le=100_000)] = 3000
    #: Other stains and scanners by Beer and Lambert (looks.py) of every tile; needs
    #: SciPy.
    looks: Annotated[int, Field(ge=0, le=20)] = 3
    #: A superpixel is trained on with at least this share of one kind.
    pure_share: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8


class Compute(Section):
    """`[compute]`: a device is a promise."""

    accelerator: Literal["cpu", "cuda"] = "cpu"
    devices: Annotated[int, Field(ge=1, le=1024)] = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    #: Intra-op threads on the CPU; 0 is torch's own. Part of what fixes the bits.
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    workers: Annotated[int, Field(ge=1, le=1024)] = 2


class Rule(Section):
    """`[constraints]`: how the slide's label chooses patches."""

    neighbors: Literal["neighbors", "complement", "lower"] = "neighbors"
    #: "patch": mean over the epoch's patches; "slide": every slide weighs the same.
    average: Literal["patch", "slide"] = "patch"


class Calibration(Section):
    """`[calibration]`."""

    mode: Literal["bias", "scale", "none"] = "bias"
    on: list[Literal["train", "val"]] = ["val"]
    margin_permille: Annotated[int, Field(ge=0, le=99)] = 10
    starts: Annotated[int, Field(ge=1, le=10_000)] = 12
    #: Never take values with which fewer slides get their label; false is the paper.
    guard: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.on or len(set(self.on)) != len(self.on):
            raise ValueError(f"need train, val or both in on, got {self.on}")
        return self


class Package(Section):
    """`[package]`: what is written about the model."""

    name: PackageName
    guideline: Literal[
        "asco-cap-2018",
        "pham-2022",
        "pham-2022-heterogeneous",
        "gefpics-2021",
        "gastric-2016",
    ] = "asco-cap-2018"
    stain: Literal["h-dab"] = "h-dab"
    synthetic: bool
    training_data: str = ""
    licence: str = ""
    intended_use: str = "research use only; not a medical device"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    segment_batch_size: Annotated[int, Field(ge=1, le=4096)] = 8


class MethodPackage(Package):
    """`[package]` of a scorer."""

    #: What finds tumor in new slides, where training had drawings.
    segmenter: Path | None = None
    #: Say that a package without segmenter, which takes all tissue for tumor, is meant.
    tissue_is_tumor: bool = False


class MembranePackage(Package):
    """`[package]` of a membrane network."""

    #: Where membrane begins: "best" has the best Dice on the validation tiles, "half"
    #: is a probability of 0.5. `beta` moves probabilities; "best" moves the cut along.
    cut: Literal["best", "half"] = "best"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 4
    #: Seen beyond a tile on each side when a slide is scored; training sees none.
    halo_px: Annotated[int, Field(ge=0, le=512, multiple_of=16)] = MEMBRANE_HALO_PX
