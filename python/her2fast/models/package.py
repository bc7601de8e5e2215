# SPDX-License-Identifier: Apache-2.0
"""Method packages: found by name or folder, checked before any model is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from her2fast.errors import SlideError, UsageError
from her2fast.models import trust
from her2fast.models.config import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_HALO_PX,
    DEFAULT_TILE_PX,
    MethodConfig,
    ModelConfig,
)
from her2fast.models.names import DEFAULT_MODEL

MODEL_FILE = "torchscript_model.pt"
#: `method` of packages that find membranes (models/membrane_package.py).
MEMBRANE = "membrane"
MAX_CONFIG_BYTES = 1 << 20
#: The classes a guideline speaks of.
GUIDELINE_CLASSES = 4

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True)
class ModelPackage:
    """One model: its configuration and the hash of its file."""

    name: str
    folder: Path
    config: ModelConfig
    sha256: str
    config_sha256: str
    known: bool

    @property
    def file(self) -> Path:
        """The TorchScript file."""
        return self.folder / MODEL_FILE

    @property
    def batch_size(self) -> int:
        """Items of every batch of this model."""
        keys = self.config.her2fast
        return keys.batch_size or DEFAULT_BATCH_SIZE[keys.task]

    def to_record(self) -> dict[str, Any]:
        """What the result says of it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "config_sha256": self.config_sha256,
            "known": self.known,
            "synthetic": self.config.her2fast.synthetic,
        }


@dataclass(frozen=True)
class MethodPackage:
    """A method with its models, as `method.json` or a bare model package gives it."""

    name: str
    method: str
    folder: Path
    classify: ModelPackage
    segment: ModelPackage | None
    tile_px: int
    halo_px: int
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    guideline: str | None
    floor_percent: int
    stain: str | None
    #: Cut of each distance in the classifier's order, and the largest share outside;
    #: None where nothing is said of the domain.
    domain: tuple[tuple[float, ...], float] | None
    synthetic: bool
    intended_use: str

    @property
    def models(self) -> tuple[ModelPackage, ...]:
        """The models, in the order of the session's slots."""
        return (self.segment, self.classify) if self.segment else (self.classify,)

    @property
    def class_names(self) -> list[str]:
        """Classes of the classifier."""
        return list(self.classify.config.class_names)

    @property
    def distance_names(self) -> list[str]:
        """Distances from the training data that the classifier gives."""
        return list(self.classify.config.her2fast.distance_names)

    @property
    def spacing_um(self) -> float:
        """Working spacing, um/px."""
        return self.classify.config.spacing_um_px

    @property
    def patch_px(self) -> int:
        """Side of the classified patches at the working spacing."""
        return self.classify.config.patch_size_pixels

    @property
    def scale_q16(self) -> list[int]:
        """Calibration factors, 65536 is 1; empty is the identity."""
        return [round(value * 65536) for value in self.scale]

    @property
    def bias_q16(self) -> list[int]:
        """Calibration offsets on the logits, 65536 is 1; empty is the identity."""
        return [round(value * 65536) for value in self.bias]

    @property
    def domain_record(self) -> dict[str, Any] | None:
        """What a record says of the limits; None where nothing is judged."""
        if self.domain is None:
            return None
        cuts, max_share = self.domain
        return {
            "names": self.distance_names,
            "cut_q16": [round(cut * 65536) for cut in cuts],
            "max_share_permille": round(max_share * 1000),
        }

    def require_known(self) -> None:
        """Raises `SlideError` MODEL_HASH where a model file is in no list."""
        require_known(self.folder, self.models)


def require_known(folder: Path, models: Iterable[ModelPackage]) -> None:
    """Raises `SlideError` MODEL_HASH where a model file of a package is in no list."""
    for model in models:
        if not model.known:
            raise SlideError(
                f"{model.file}: sha256 {model.sha256} is neither in the list of this "
                f"release nor in {trust.trust_file()}; if you trust it, run "
                f"`her2fast models trust {folder}` or pass --allow-unknown-model",
                "MODEL_HASH",
            )


def printable(name: str) -> str:
    """A path's text as any file can hold it; bytes that are not UTF-8 become \\xff."""
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        data = name.encode("utf-8", "backslashreplace")
    return data.decode("utf-8", "backslashreplace")


def shipped_names() -> list[str]:
    """Names of the packages inside the wheel."""
    if not trust.SHIPPED_DIR.is_dir():
        return []
    return sorted(p.name for p in trust.SHIPPED_DIR.iterdir() if p.is_dir())


def find_package(model: str | Path) -> Path:
    """The folder of a package by the name of a shipped one, or by its folder."""
    text = str(model)
    if text in shipped_names():
        return trust.SHIPPED_DIR / text
    folder = Path(text)
    if not folder.is_dir():
        names = ", ".join(shipped_names()) or "none"
        raise UsageError(
            f"need a model package: {text!r} is neither a folder nor one of: {names}"
        )
    return folder


def method_of(folder: Path) -> str:
    """What `method.json` calls its method; "patches" of a bare model package."""
    place = folder / "method.json"
    if not place.is_file():
        return "patches"
    return _read_config(place, _AnyMethod)[0].method


class _AnyMethod(BaseModel):
    """The one key that says by which configuration the others are read."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    method: str = "constrained"


def load_package(model: str | Path | None = None) -> MethodPackage:
    """A method package by the name of a shipped one, or by its folder.

    Hashes every model file; parses none. A hash that differs from the one a package
    states raises `SlideError` MODEL_HASH; whether unknown files may run is the
    caller's to ask (`MethodPackage.require_known`). Raises `UsageError` where the
    folder is no package, or one of membranes.
    """
    folder = find_package(DEFAULT_MODEL if model is None else model)
    known = trust.known_hashes()
    if method_of(folder) == MEMBRANE:
        raise UsageError(
            f"{folder.name} is a membrane package: score with it by `her2fast "
            f"membranes -m {model}`, or give one that classifies patches, as "
            f"{DEFAULT_MODEL}"
        )
    if (folder / "method.json").is_file():
        return _load_method(folder, known)
    if (folder / "config.json").is_file():
        return _load_bare(folder, known)
    raise UsageError(f"{folder}: has neither method.json nor config.json")


def _load_method(folder: Path, known: dict[str, str]) -> MethodPackage:
    config, _ = _read_config(folder / "method.json", MethodConfig)
    classify = _load_model(folder / config.models.classify, known)
    segment = (
        _load_model(folder / config.models.segment, known)
        if config.models.segment is not None
        else None
    )
    place = folder / "method.json"
    if (config.method == "constrained") != (segment is not None):
        raise UsageError(
            f"{place}: method {config.method!r} needs "
            + ("a segmenter" if segment is None else "no segmenter")
        )
    package = MethodPackage(
        name=config.name,
        method=config.method,
        folder=folder,
        classify=classify,
        segment=segment,
        tile_px=config.tile_px or _default_tile_px(classify.config.patch_size_pixels),
        halo_px=segment.config.her2fast.halo_px if segment else DEFAULT_HALO_PX,
        scale=tuple(config.calibration.scale),
        bias=tuple(config.calibration.bias),
        guideline=config.guideline,
        floor_percent=config.floor_percent,
        stain=config.stain,
        domain=_domain(config, classify, place),
        synthetic=config.synthetic or any_synthetic(classify, segment),
        intended_use=config.intended_use,
    )
    _check_method(package, place)
    return package


def _load_bare(folder: Path, known: dict[str, str]) -> MethodPackage:
    classify = _load_model(folder, known)
    package = MethodPackage(
        name=printable(folder.resolve().name),
        method="patches",
        folder=folder,
        classify=classify,
        segment=None,
        tile_px=_default_tile_px(classify.config.patch_size_pixels),
        halo_px=DEFAULT_HALO_PX,
        scale=(),
        bias=(),
        guideline=None,
        floor_percent=1,
        stain=None,
        domain=None,
        synthetic=classify.config.her2fast.synthetic,
        intended_use=classify.config.her2fast.intended_use,
    )
    _check_method(package, folder / "config.json")
    return package


def _domain(
    config: MethodConfig, classify: ModelPackage, place: Path
) -> tuple[tuple[float, ...], float] | None:
    if config.domain is None:
        return None
    names = classify.config.her2fast.distance_names
    if set(config.domain.cuts) != set(names):
        raise UsageError(
            f"{place}: need domain.cuts of the classifier's distance_names "
            f"{sorted(names)}, got {sorted(config.domain.cuts)}"
        )
    cuts = tuple(config.domain.cuts[name] for name in names)
    return cuts, config.domain.max_share


def any_synthetic(*models: ModelPackage | None) -> bool:
    """Whether a model was trained on generated data."""
    return any(m is not None and m.config.her2fast.synthetic for m in models)


def _default_tile_px(patch_px: int) -> int:
    return patch_px * max(1, DEFAULT_TILE_PX // patch_px)


def _check_method(package: MethodPackage, place: Path) -> None:
    classes = len(package.class_names)
    if package.classify.config.her2fast.task != "classify":
        raise UsageError(f"{place}: the classifier's task is not classify")
    if package.tile_px % package.patch_px:
        raise UsageError(
            f"{place}: need tile_px as a multiple of the patch of {package.patch_px} "
            f"px, got {package.tile_px}"
        )
    for name, values in (("scale", package.scale), ("bias", package.bias)):
        if values and len(values) != classes:
            raise UsageError(
                f"{place}: need {classes} values of calibration.{name}, "
                f"got {len(values)}"
            )
    if package.guideline is not None and classes != GUIDELINE_CLASSES:
        raise SlideError(
            f"{place}: guideline {package.guideline!r} needs the classes 0, 1+, 2+ and "
            f"3+, got {package.class_names}",
            "MODEL_CLASSES",
        )
    segment = package.segment
    if segment is None:
        return
    side = package.tile_px + 2 * package.halo_px
    if segment.config.her2fast.task != "segment":
        raise UsageError(f"{place}: the segmenter's task is not segment")
    if segment.config.patch_size_pixels != side:
        raise UsageError(
            f"{segment.folder / 'config.json'}: need patch_size_pixels={side} "
            f"(tile_px={package.tile_px} and halo_px={package.halo_px} on both "
            f"sides), got {segment.config.patch_size_pixels}"
        )
    if segment.config.spacing_um_px != package.spacing_um:
        raise UsageError(
            f"{place}: need one spacing for both models, got "
            f"{segment.config.spacing_um_px} and {package.spacing_um} um/px"
        )


def _load_model(folder: Path, known: dict[str, str]) -> ModelPackage:
    config, config_sha256 = _read_config(folder / "config.json", ModelConfig)
    file = folder / MODEL_FILE
    if not file.is_file():
        raise UsageError(f"{file}: the model file is missing")
    sha256 = trust.sha256_file(file)
    stated = config.her2fast.sha256
    if stated is not None and stated != sha256:
        raise SlideError(
            f"{file}: need sha256 {stated} as {folder / 'config.json'} states, got "
            f"{sha256}: the file was changed or is damaged",
            "MODEL_HASH",
        )
    name = printable(folder.resolve().name)
    return ModelPackage(name, folder, config, sha256, config_sha256, sha256 in known)


def _read_config(path: Path, kind: type[Config]) -> tuple[Config, str]:
    """The checked configuration and the SHA-256 of its canonical JSON."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{path}: need at most {MAX_CONFIG_BYTES} bytes")
    try:
        content = json.loads(data)
        config = kind.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return config, hashlib.sha256(canonical.encode()).hexdigest()


def _first(error: ValidationError) -> str:
    """The first complaint, with its place."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
