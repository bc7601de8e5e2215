# SPDX-License-Identifier: Apache-2.0
"""Method packages of membranes: one network that finds stained membrane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from her2fast.errors import UsageError
from her2fast.kernels.cells import cells_reach_px
from her2fast.models import trust
from her2fast.models.config import ModelConfig, SidePx
from her2fast.models.names import DEFAULT_MEMBRANE_MODEL
from her2fast.models.package import (
    MEMBRANE,
    MethodPackage,
    ModelPackage,
    _load_model,
    _read_config,
    find_package,
    load_tumor_package,
    method_of,
    require_known,
    shipped_names,
)

#: The grid of nuclei and cells is 0.4 to 0.6 um/px; pictures finer than 0.3 are halved.
GRID_UM = (0.4, 0.6)
#: Coarser pictures do not resolve faint membranes: 0 could not be told null.
COARSEST_UM = 0.5
MAX_STEP = 2


class MembraneModels(BaseModel):
    """Folder of the model package inside the method package."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    membrane: Literal["membrane"]


class MembraneMethodConfig(BaseModel):
    """`method.json` of a membrane package."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    spec_version: Literal["1.0"] = "1.0"
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    method: Literal["membrane"]
    models: MembraneModels
    tile_px: SidePx
    guideline: str | None = None
    floor_percent: Annotated[int, Field(ge=0, le=100)] = 1
    stain: Literal["h-dab"] | None = None
    #: Spurs up to this length come off the network's mask; 0 leaves it as it is.
    prune_um: Annotated[float, Field(ge=0.0, le=8.0)] = 0.0
    synthetic: bool = False
    intended_use: str = ""
    description: str = ""


@dataclass(frozen=True)
class MembranePackage:
    """A membrane method with its model."""

    name: str
    folder: Path
    model: ModelPackage
    guideline: str | None
    floor_percent: int
    stain: str | None
    synthetic: bool
    intended_use: str
    prune_um: float = 0.0

    @property
    def prune_px(self) -> int:
        """Longest spur that comes off, in pixels of the network's picture."""
        return round(self.prune_um / self.spacing_um)

    @property
    def method(self) -> str:
        """What `method.json` calls it."""
        return MEMBRANE

    @property
    def models(self) -> tuple[ModelPackage, ...]:
        """Its one model."""
        return (self.model,)

    @property
    def class_names(self) -> list[str]:
        """Outputs of the network."""
        return list(self.model.config.class_names)

    @property
    def halo_px(self) -> int:
        """What the network sees beyond its tile on each side."""
        return self.model.config.her2fast.halo_px

    @property
    def tile_px(self) -> int:
        """Side of a tile of the network without its halo, at `spacing_um`."""
        return self.model.config.patch_size_pixels - 2 * self.halo_px

    @property
    def spacing_um(self) -> float:
        """Spacing the network works at."""
        return self.model.config.spacing_um_px

    @property
    def step(self) -> int:
        """Pixels of the network's picture along one of the cells' grid."""
        return grid_step(self.spacing_um)

    def require_known(self) -> None:
        """Raises `SlideError` MODEL_HASH where the model file is in no list."""
        require_known(self.folder, self.models)


def grid_step(spacing_um: float) -> int:
    """Pixels to one of the grid on which nuclei and cells are found.

    Raises `UsageError`: no whole number gives 0.4 to 0.6 um/px, or coarser than 0.5.

    Examples
    --------
    >>> grid_step(0.25), grid_step(0.5)
    (2, 1)
    """
    for step in range(1, MAX_STEP + 1):
        grid_um = step * spacing_um
        if GRID_UM[0] <= grid_um <= GRID_UM[1] and spacing_um <= COARSEST_UM:
            return step
    raise UsageError(
        "need membranes at 0.2 to 0.3 or 0.4 to 0.5 um/px, where cells can be told, "
        f"got {spacing_um:g} um/px"
    )


def load_any_package(model: str | Path) -> MethodPackage | MembranePackage:
    """A package of either kind; raises as its own loader does."""
    if method_of(find_package(model)) == MEMBRANE:
        return load_membrane_package(model)
    return load_tumor_package(model)


def load_membrane_package(model: str | Path | None = None) -> MembranePackage:
    """A membrane package by the name of a shipped one, or by its folder.

    Hashes the model file and parses none; raises `UsageError`, and `SlideError`
    MODEL_HASH where the file is not the one that its configuration states.
    """
    if model is None and DEFAULT_MEMBRANE_MODEL not in shipped_names():
        raise UsageError(
            f"need a membrane package: no {DEFAULT_MEMBRANE_MODEL} ships with this "
            "installation; train one with `her2fast train membrane` and give its "
            "folder (-m DIR, model=DIR)"
        )
    folder = find_package(DEFAULT_MEMBRANE_MODEL if model is None else model)
    place = folder / "method.json"
    method = method_of(folder)
    if method != MEMBRANE:
        raise UsageError(
            f"need a membrane package, as `her2fast train membrane` writes it: "
            f"{folder.name} is of method {method!r}; score with it by `her2fast score "
            f"-m {model}`"
        )
    config, _ = _read_config(place, MembraneMethodConfig)
    loaded = _load_model(folder / config.models.membrane, trust.known_hashes())
    stated = loaded.config
    if stated.her2fast.task != "membrane":
        raise UsageError(f"{place}: the model's task is not membrane")
    halo_px = stated.her2fast.halo_px
    side_px = config.tile_px + 2 * halo_px
    if stated.patch_size_pixels != side_px:
        raise UsageError(
            f"{loaded.folder / 'config.json'}: need patch_size_pixels={side_px} "
            f"(tile_px={config.tile_px} and halo_px={halo_px} on both sides), got "
            f"{stated.patch_size_pixels}"
        )
    _check_outputs(place, stated)
    package = MembranePackage(
        name=config.name,
        folder=folder,
        model=loaded,
        guideline=config.guideline,
        floor_percent=config.floor_percent,
        stain=config.stain,
        synthetic=config.synthetic or stated.her2fast.synthetic,
        intended_use=config.intended_use,
        prune_um=config.prune_um,
    )
    if package.tile_px % package.step:
        raise UsageError(
            f"{place}: need an even tile_px at {package.spacing_um:g} um/px, got "
            f"{package.tile_px}"
        )
    if package.prune_um > 0 and package.prune_px == 0:
        raise UsageError(
            f"{place}: need prune_um of 0 or of half a pixel "
            f"({package.spacing_um / 2:g}) or more, got {package.prune_um:g}"
        )
    reach_px = cells_reach_px(package.step, package.prune_px)
    if package.tile_px < reach_px:
        raise UsageError(
            f"{place}: need tile_px of {reach_px} or more, got {package.tile_px}: a "
            "cell must not depend on more than the tiles beside its own"
        )
    return package


def _check_outputs(place: Path, stated: ModelConfig) -> None:
    """Raises `UsageError` unless channel 0 is membrane from 0 on, as a logit is."""
    if stated.class_names[0] != "membrane":
        raise UsageError(
            f"{place}: need a model whose first class is 'membrane', got "
            f"{stated.class_names}"
        )
    # Of two channels without activation the runner takes logarithms: never above 0.
    activation = stated.her2fast.activation
    known = ("sigmoid", "none") if stated.num_classes == 1 else ("sigmoid",)
    if activation not in known:
        raise UsageError(
            f"{place}: need activation of {', '.join(known)} for a membrane model of "
            f"{stated.num_classes} channels, got {activation!r}"
        )
