# SPDX-License-Identifier: Apache-2.0
"""Patches of many slides as one memory-mapped table; drawing of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from her2fast.errors import SlideError, UsageError
from her2fast.models.package import ModelPackage, load_package, load_segmenter
from her2fast.training.cache import Arrays, SlideCache
from her2fast.training.cohort import TrainingSlide, check_duplicates
from her2fast.training.config_sections import (
    TILE_PX,
    Compute,
    Data,
    MembraneData,
    Train,
)
from her2fast.training.extract import MEMBRANE_MASK, TUMOR_MASK, Cutter, Cutting

Longs = npt.NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Pieces:
    """What was cut from some slides, in their order; slide i has [offsets[i], ...)."""

    slides: tuple[TrainingSlide, ...]
    arrays: tuple[Arrays, ...]
    offsets: Longs

    @classmethod
    def of(cls, slides: Sequence[TrainingSlide], arrays: Sequence[Arrays]) -> Pieces:
        """Slides and what was cut from each."""
        sizes = [len(one["rgb"]) for one in arrays]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(tuple(slides), tuple(arrays), offsets)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def slide_of(self, index: npt.ArrayLike) -> Longs:
        """Number of the slide of each piece."""
        return np.searchsorted(self.offsets, np.asarray(index), side="right") - 1

    def take(self, name: str, index: Longs) -> npt.NDArray[Any]:
        """One array's rows, from whatever slides; read in the order of the files."""
        order = np.argsort(index, kind="stable")
        sorted_index = index[order]
        owner = self.slide_of(sorted_index)
        first = self.arrays[0][name]
        out = np.empty((len(index), *first.shape[1:]), first.dtype)
        for slide in np.unique(owner).tolist():
            chosen = np.flatnonzero(owner == slide)
            local = sorted_index[chosen] - self.offsets[slide]
            out[order[chosen]] = self.arrays[slide][name][local]
        return out

    def column(self, name: str) -> npt.NDArray[Any]:
        """One array of all slides; not for pixels."""
        return np.concatenate([arrays[name] for arrays in self.arrays])


class Dataset:
    """The cohort's pieces by part, cut where the cache lacks them."""

    def __init__(self, data: Data, compute: Compute, kind: str, *, say: Say) -> None:
        self.kind = kind
        self._data = data
        self._say = say
        self._segmenter = segmenter_of(data.segmenter)
        tile_px, mask_name = TILE_PX, TUMOR_MASK
        if isinstance(data, MembraneData):
            tile_px, mask_name = data.tile_px, MEMBRANE_MASK
        self._cutter = Cutter(
            Cutting(
                spacing_um=data.spacing_um,
                reading=data.reading,
                workers=compute.workers,
                annotations=data.annotations,
                segmenter=self._segmenter,
                device=compute.accelerator,
                max_patches=data.max_patches if kind == "patches" else 0,
                tile_px=tile_px,
                mask_name=mask_name,
            )
        )
        self.cache = SlideCache(data.cache)
        self.fingerprints: dict[str, str] = {}
        self.skipped: dict[str, str] = {}

    @property
    def segmenter(self) -> ModelPackage | None:
        """The model whose mask is the tumor, if there is one."""
        return self._segmenter

    def pieces(self, slides: Sequence[TrainingSlide]) -> Pieces:
        """Cut or map `slides`.

        Raises `UsageError` that names every slide that cannot be trained on (unless
        `bad_slides` is "skip"), and slides that are one file.
        """
        kept, arrays, bad = [], [], {}
        for number, source in enumerate(slides, 1):
            try:
                opened = self._cutter.open(source)
                self.fingerprints[source.id] = str(opened.record["fingerprint"])
                settings = {
                    "kind": self.kind,
                    **self._cutter.cutting.settings(opened, source),
                }
                make = (
                    self._cutter.patches
                    if self.kind == "patches"
                    else self._cutter.tiles
                )
                before = self.cache.made
                found = self.cache.get(
                    settings,
                    lambda m=make, o=opened, s=source: m(o, s),  # type: ignore[misc]
                )
                if self.cache.made > before:
                    self._say(
                        f"cut {source.id} ({number}/{len(slides)}): "
                        f"{len(found['rgb'])} {self.kind}"
                    )
            except SlideError as error:
                bad[source.id] = f"{error.code}: {error}"
                continue
            kept.append(source)
            arrays.append(found)
        if bad and self._data.bad_slides == "error":
            names = "\n  ".join(f"{name}: {why}" for name, why in bad.items())
            raise UsageError(
                f"{len(bad)} slides cannot be trained on; mend them, or leave them out "
                f'with [data] bad_slides = "skip":\n  {names}'
            )
        for name, why in bad.items():
            self._say(f"left out {name}: {why}")
        self.skipped |= bad
        check_duplicates(self.fingerprints)
        if not kept:
            raise UsageError("no slide is left to train on")
        return Pieces.of(kept, arrays)


def segmenter_of(place: Path | None) -> ModelPackage | None:
    """The segmenter of a method package, or a bare segmenter's folder."""
    if place is None:
        return None
    if (place / "method.json").is_file():
        package = load_package(place)
        package.require_known()
        if package.segment is None:
            raise UsageError(f"{place}: the package has no segmenter")
        return package.segment
    model = load_segmenter(place)
    if not model.known:
        raise SlideError(
            f"{model.file}: sha256 {model.sha256} is neither in the list of this "
            "release nor in your trust file, where `her2fast train segment` puts what "
            "it wrote; train it here, or trust a method package that holds it",
            "MODEL_HASH",
        )
    return model


def draw_epoch(
    pieces: Pieces,
    balance: Sequence[str],
    count: int,
    rng: np.random.Generator,
) -> Longs:
    """Pieces of one epoch in random order.

    Without `balance` every piece once, or `count` of them. With it each group of
    equal site, scanner and label is drawn equally often: whole rounds through a group
    and a random rest, so no piece comes twice before all of its group came once.
    """
    total = len(pieces)
    count = count or total
    if not balance:
        return _rounds(np.arange(total, dtype=np.int64), count, rng)
    keys = [tuple(slide.group(name) for name in balance) for slide in pieces.slides]
    groups = sorted(set(keys))
    drawn = []
    for number, group in enumerate(groups):
        members = np.concatenate(
            [
                np.arange(pieces.offsets[i], pieces.offsets[i + 1], dtype=np.int64)
                for i, key in enumerate(keys)
                if key == group
            ]
        )
        share = count // len(groups) + (number < count % len(groups))
        drawn.append(_rounds(members, share, rng))
    chosen = np.concatenate(drawn)
    return chosen[rng.permutation(len(chosen))]


def _rounds(members: Longs, count: int, rng: np.random.Generator) -> Longs:
    parts, left = [], count
    while left > 0:
        part = members[rng.permutation(len(members))][:left]
        parts.append(part)
        left -= len(part)
    return np.concatenate(parts) if parts else members[:0]


def batches(
    index: Longs, size: int, *, rank: int, ranks: int, whole: bool
) -> list[Longs]:
    """The batches of one process: `size` over all processes together.

    With `whole` a last batch that is not full is left out, unless it is the only one;
    a process never has fewer batches than another.
    """
    cuts = [index[start : start + size] for start in range(0, len(index), size)]
    if whole and len(cuts) > 1 and len(cuts[-1]) < size:
        cuts.pop()
    return [cut[rank::ranks] for cut in cuts if len(cut) >= ranks]


def epoch_batches(
    pieces: Pieces, train: Train, *, seed: int, rank: int, ranks: int
) -> list[Longs]:
    """The batches of one process in an epoch that draws from everything."""
    index = draw_epoch(
        pieces, train.balance, train.samples_per_epoch, np.random.default_rng(seed)
    )
    return batches(index, train.batch_size, rank=rank, ranks=ranks, whole=True)


def in_order(count: int, size: int) -> Iterator[Longs]:
    """Indexes 0 to count in pieces of `size`."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count), dtype=np.int64)


def to_device(array: npt.NDArray[Any], device: Any) -> torch.Tensor:
    """A tensor on a device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
