# SPDX-License-Identifier: Apache-2.0
"""Cuts what is trained on from slides: patches of tumor, tiles with drawn tumor.

Patches come from the session that scores: same grid, same tissue rule, same region,
same share of tumor that a patch needs. So a network is trained on what it will see.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from her2fast import _core
from her2fast.errors import SlideError, UsageError
from her2fast.kernels import tissue_mask, tumor_count
from her2fast.manifest import LABELS, region_of, roi_for
from her2fast.measure import Models, default_workers, run_session
from her2fast.models.package import ModelPackage
from her2fast.models.runner import check_device, open_runner
from her2fast.opened_slide import OpenedSlide, open_input
from her2fast.slide import Slide, _as_geometry, open_slide
from her2fast.training.cohort import TrainingSlide
from her2fast.training.config_sections import HALO_PX, PATCH_PX, TILE_PX

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Mask = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]

#: Labels of a segmentation tile's pixels; of membranes 1 is stained membrane.
NOT_TUMOR, TUMOR, IGNORED = 0, 1, 255
#: What `her2fast phantom` calls its masks.
TUMOR_MASK, MEMBRANE_MASK = "tumor_mask.png", "membrane_mask.png"
#: A tile is trained on with at least this share of tissue, and of labelled pixels.
MIN_TISSUE = 0.05
MIN_LABELLED = 0.10
PM_PER_UM = 1_000_000
#: What ends a slide's part in training; the rest is about scores.
BAD_CODES = (
    "MISSING_TILES",
    "CORRUPT_TILES",
    "WRONG_STAIN",
    "NO_TISSUE",
    "NO_TUMOR",
)


@dataclass(frozen=True)
class Cutting:
    """How slides are cut; with a slide's fingerprint the key of its cache entry."""

    spacing_um: float
    reading: str
    workers: int
    annotations: Path | None = None
    segmenter: ModelPackage | None = None
    device: str = "cpu"
    max_patches: int = 0
    tile_px: int = TILE_PX
    mask_name: str = TUMOR_MASK

    def annotation(self, source: TrainingSlide) -> Path | None:
        """The slide's drawing, if there is one."""
        return annotation_of(source.entry.slide, self.annotations, self.mask_name)

    def settings(self, slide: OpenedSlide, source: TrainingSlide) -> dict[str, Any]:
        """What decides the pixels, for the key."""
        place = self.annotation(source)
        roi = region_of(source.entry, None)
        return {
            "fingerprint": slide.record["fingerprint"],
            "slide_spacing_um": list(slide.spacing_um),
            "spacing_um": self.spacing_um,
            "reading": self.reading,
            "annotation": None if place is None else _digest(place),
            "segmenter": None if self.segmenter is None else self.segmenter.sha256,
            "roi": None if roi is None else _digest(Path(roi)),
            "max_patches": self.max_patches,
            # Entries of the usual tiles keep the key they had.
            **({"tile_px": self.tile_px} if self.tile_px != TILE_PX else {}),
        }


class _NoClass:
    """Stands where the classifier will be: the session asks, nothing is known yet."""

    def run(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Zeros of the shape that a classifier gives."""
        return np.zeros((len(rgb), len(LABELS)), np.float32)


class _Masking(Models):
    """The session's models: a segmenter, if there is one, and no classifier."""

    def __init__(self, segmenter: ModelPackage | None, device: str) -> None:
        self.device = check_device(device)
        self.runners = [] if segmenter is None else [open_runner(segmenter, device)]
        self.runners.append(_NoClass())


class Cutter:
    """Cuts slides one after the other; opens the segmenter once."""

    def __init__(self, cutting: Cutting) -> None:
        """Raises `UsageError`, `DeviceError`, `SlideError` of a model."""
        self.cutting = cutting
        self._models: _Masking | None = None
        segmenter = cutting.segmenter
        if segmenter is None:
            return
        config = segmenter.config
        if config.her2fast.task != "segment":
            raise UsageError(f"{segmenter.folder}: the model is no segmenter")
        if config.spacing_um_px != cutting.spacing_um:
            raise UsageError(
                f"{segmenter.folder}: need spacing_um_px={cutting.spacing_um}, got "
                f"{config.spacing_um_px}"
            )
        side_px = TILE_PX + 2 * config.her2fast.halo_px
        if config.patch_size_pixels != side_px:
            raise UsageError(
                f"{segmenter.folder}: need patch_size_pixels={side_px}, got "
                f"{config.patch_size_pixels}"
            )

    def open(self, source: TrainingSlide) -> OpenedSlide:
        """The slide and its frame; raises `SlideError`."""
        return open_input(source.entry.slide, source.entry.mpp)

    def patches(
        self, slide: OpenedSlide, source: TrainingSlide
    ) -> dict[str, npt.NDArray[Any]]:
        """rgb (n, 64, 64, 3), tumor_px (n,), row and column (n,) of the patch grid.

        Raises `SlideError` where the slide cannot be trained on.
        """
        core = self._measure(slide)
        decision = _core.decide(core, rule_set=None, bootstrap_replicates=0)
        if decision["code"] in BAD_CODES:
            raise SlideError(
                f"{source.id}: {decision['message']}", str(decision["code"])
            )
        counts = self._counts(core, slide, source)
        row, column = np.nonzero(counts * 100 > _keep_percent() * PATCH_PX * PATCH_PX)
        if len(row) == 0:
            raise SlideError(
                f"{source.id}: no patch with more than {_keep_percent()} % tumor",
                "NO_TUMOR",
            )
        limit = self.cutting.max_patches
        if 0 < limit < len(row):
            seed = int(str(slide.record["fingerprint"])[:16], 16)
            chosen = np.random.default_rng(seed).permutation(len(row))[:limit]
            chosen.sort()
            row, column = row[chosen], column[chosen]
        return {
            "rgb": self._read_patches(source, row, column),
            "tumor_px": counts[row, column].astype(np.uint32),
            "row": row.astype(np.int32),
            "column": column.astype(np.int32),
            "kept_tumor_px": np.array(
                [counts[counts * 100 > _keep_percent() * PATCH_PX**2].sum()], np.int64
            ),
            "tumor_total_px": np.array([counts.sum()], np.int64),
        }

    def tiles(
        self, slide: OpenedSlide, source: TrainingSlide
    ) -> dict[str, npt.NDArray[Any]]:
        """rgb (n, T, T, 3) and mask (n, T, T): 1 drawn, 0 not, 255 ignored.

        T is `tile_px`, 256 for tumor.
        """
        side_px = self.cutting.tile_px
        place = self.cutting.annotation(source)
        if place is None:
            raise UsageError(
                f"{source.id}: no <slide>.geojson, <slide>.png or "
                f"<slide>/{self.cutting.mask_name} in "
                f"{self.cutting.annotations or 'the folder truth beside its folder'}"
            )
        rgbs, masks, damaged = [], [], 0
        spacing = self.cutting.spacing_um
        with self._open_pixels(source) as pixels:
            tumor = DrawnArea(pixels, spacing, place)
            roi = region_of(source.entry, None)
            region = None if roi is None else DrawnArea(pixels, spacing, Path(roi))
            columns, rows = _tiles_along(pixels, spacing, side_px)
            places = [(row, column) for row in range(rows) for column in range(columns)]
            index = iter(places)
            for batch in pixels.tiles(
                side_px, spacing, batch_size=8, workers=self.cutting.workers
            ):
                for rgb, status in zip(batch.rgb, batch.status, strict=True):
                    row, column = next(index)
                    damaged += status != "ok"
                    if _tissue_share(rgb, spacing) < MIN_TISSUE:
                        continue
                    x_px, y_px = column * side_px, row * side_px
                    mask = tumor.mask(x_px, y_px, side_px, side_px)
                    label = np.where(mask > 0, TUMOR, NOT_TUMOR).astype(np.uint8)
                    if region is not None:
                        inside = region.mask(x_px, y_px, side_px, side_px) > 0
                        label[~inside] = IGNORED
                    if (label != IGNORED).mean() < MIN_LABELLED:
                        continue
                    rgbs.append(rgb.copy())
                    masks.append(label)
        if damaged:
            raise SlideError(f"{source.id}: {damaged} damaged tiles", "CORRUPT_TILES")
        if not rgbs:
            raise SlideError(f"{source.id}: no tile of tissue is labelled", "NO_TISSUE")
        return {"rgb": np.stack(rgbs), "mask": np.stack(masks)}

    def _open_pixels(self, source: TrainingSlide) -> Slide:
        reading: Any = self.cutting.reading
        return open_slide(source.entry.slide, source.entry.mpp, reading)

    def _measure(self, slide: OpenedSlide) -> _core.Measurement:
        cutting = self.cutting
        if self._models is None:
            self._models = _Masking(cutting.segmenter, cutting.device)
        segmenter = cutting.segmenter
        reader = slide.reader(workers=cutting.workers, reading=cutting.reading)
        reader.plan(cutting.spacing_um)
        session = _core.PatchSession(
            slide.size_px,
            slide.spacing_um,
            spacing_um=cutting.spacing_um,
            patch_px=PATCH_PX,
            tile_px=TILE_PX,
            halo_px=segmenter.config.her2fast.halo_px if segmenter else HALO_PX,
            class_names=list(LABELS),
            classify_batch=32,
            has_segmenter=segmenter is not None,
            segment_batch=segmenter.batch_size if segmenter else 1,
            segment_channels=segmenter.config.num_classes if segmenter else 1,
        )
        return run_session(
            session,
            self._models,
            lambda s: s.read_from(reader),
            workers=min(cutting.workers, default_workers()),
        )

    def _counts(
        self, core: _core.Measurement, slide: OpenedSlide, source: TrainingSlide
    ) -> Longs:
        """Tumor pixels of every patch of the grid, region and drawing applied."""
        width_px = core.tiles_x * TILE_PX
        areas: list[DrawnArea] = []
        place = self.cutting.annotation(source)
        if self.cutting.annotations is not None and place is None:
            raise UsageError(
                f"{source.id}: no <slide>.geojson or <slide>.png in "
                f"{self.cutting.annotations}"
            )
        roi = region_of(source.entry, None)
        for file in (place, None if roi is None else Path(roi)):
            if file is not None:
                frame = Frame(slide.size_px, slide.spacing_um)
                areas.append(DrawnArea(frame, self.cutting.spacing_um, file))
        strips = []
        for row in range(core.tiles_y):
            y_px = row * TILE_PX
            mask = core.tumor_mask(0, y_px, width_px, TILE_PX)
            for area in areas:
                for column in range(core.tiles_x):
                    x_px = column * TILE_PX
                    part = mask[:, x_px : x_px + TILE_PX]
                    if part.any():
                        part &= area.mask(x_px, y_px, TILE_PX, TILE_PX)
            strips.append(tumor_count(mask, patch_px=PATCH_PX, stride_px=PATCH_PX))
        return np.concatenate(strips).astype(np.int64)

    def _read_patches(
        self, source: TrainingSlide, row: Longs, column: Longs
    ) -> npt.NDArray[np.uint8]:
        """Patches in the order given, tile by tile so that each is decoded once."""
        side = TILE_PX // PATCH_PX
        spacing = self.cutting.spacing_um
        out = np.empty((len(row), PATCH_PX, PATCH_PX, 3), np.uint8)
        tiles = np.stack([row // side, column // side], axis=1)
        needed, owner = np.unique(tiles, axis=0, return_inverse=True)
        owner = owner.reshape(-1)
        with self._open_pixels(source) as pixels:
            corners = np.stack(
                [
                    _floors(needed[:, 1] * TILE_PX, pixels.spacing_um[0], spacing),
                    _floors(needed[:, 0] * TILE_PX, pixels.spacing_um[1], spacing),
                ],
                axis=1,
            )
            members = np.argsort(owner, kind="stable")
            starts = np.searchsorted(owner[members], np.arange(len(needed) + 1))
            tile = 0
            for batch in pixels.tiles(
                TILE_PX,
                spacing,
                batch_size=8,
                workers=self.cutting.workers,
                coords_px=corners,
            ):
                for rgb in batch.rgb:
                    for i in members[starts[tile] : starts[tile + 1]].tolist():
                        y = int(row[i]) % side * PATCH_PX
                        x = int(column[i]) % side * PATCH_PX
                        out[i] = rgb[y : y + PATCH_PX, x : x + PATCH_PX]
                    tile += 1
        return out


def annotation_of(
    slide: str, folder: Path | None, mask_name: str = TUMOR_MASK
) -> Path | None:
    """The drawing of a slide: <stem>.geojson, or a mask: <stem>.png, or what `her2fast
    phantom` writes, <stem>/`mask_name`. Membranes of phantoms, whose folders share
    names, are also found without `folder`, in the folder `truth` beside the slide's.
    """
    if folder is None:
        beside = Path(slide).resolve().parent.parent / "truth"
        if mask_name != MEMBRANE_MASK or not beside.is_dir():
            return None
        folder = beside
    if not folder.is_dir():
        raise UsageError(f"{folder}: need a folder of annotations")
    drawn = roi_for(slide, os.fspath(folder))
    if drawn is not None:
        return Path(drawn)
    stem = Path(slide).stem
    for picture in (folder / f"{stem}.png", folder / stem / mask_name):
        if picture.is_file():
            return picture
    return None


@dataclass(frozen=True)
class Frame:
    """Size and spacing of level 0, where no slide is open."""

    dimensions: tuple[int, int]
    spacing_um: tuple[float, float]


class DrawnArea:
    """A drawn area as masks on the grid: a pixel counts where its center is inside."""

    def __init__(self, slide: Frame | Slide, spacing_um: float, path: Path) -> None:
        self._per_px = tuple(spacing_um / own for own in slide.spacing_um)
        self._picture: Mask | None = None
        self._geometry: BaseGeometry | None = None
        if path.suffix.lower() == ".png":
            self._picture = _read_picture(path, slide, spacing_um)
        else:
            import shapely

            self._geometry = _as_geometry(path, slide.dimensions)
            shapely.prepare(self._geometry)

    def mask(self, x_px: int, y_px: int, width_px: int, height_px: int) -> Mask:
        """255 inside, 0 outside; (height, width) from (x, y) of the grid."""
        out = np.zeros((height_px, width_px), np.uint8)
        if self._picture is not None:
            part = self._picture[y_px : y_px + height_px, x_px : x_px + width_px]
            out[: part.shape[0], : part.shape[1]] = np.where(part > 0, 255, 0)
            return out
        import shapely

        per_x, per_y = self._per_px
        box = shapely.box(
            x_px * per_x,
            y_px * per_y,
            (x_px + width_px) * per_x,
            (y_px + height_px) * per_y,
        )
        if not shapely.intersects(self._geometry, box):
            return out
        if shapely.contains(self._geometry, box):
            out[:] = 255
            return out
        x, y = np.meshgrid(
            (x_px + np.arange(width_px) + 0.5) * per_x,
            (y_px + np.arange(height_px) + 0.5) * per_y,
        )
        out[shapely.contains_xy(self._geometry, x, y)] = 255
        return out


def _read_picture(path: Path, slide: Frame | Slide, spacing_um: float) -> Mask:
    """A mask on the grid, or of level 0, taken at the centers of the grid's pixels."""
    from PIL import Image

    on_grid = tuple(
        -(-size * _pm(own) // _pm(spacing_um))
        for size, own in zip(slide.dimensions, slide.spacing_um, strict=True)
    )
    with warnings.catch_warnings():
        # The size is checked against the slide's, before a pixel is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                if image.size not in (on_grid, slide.dimensions):
                    raise UsageError(
                        f"{path}: need a mask of {on_grid[0]} x {on_grid[1]} px, the "
                        f"slide at the working spacing, or of its level 0, got "
                        f"{image.size[0]} x {image.size[1]}"
                    )
                mask = np.asarray(image.convert("L"))
        except OSError as error:
            raise UsageError(f"{path}: is no picture: {error}") from error
    if mask.shape[::-1] == on_grid:
        return mask
    centers = [
        np.minimum(
            ((np.arange(count) + 0.5) * spacing_um / own).astype(np.int64), size - 1
        )
        for count, size, own in zip(
            on_grid, slide.dimensions, slide.spacing_um, strict=True
        )
    ]
    return np.ascontiguousarray(mask[np.ix_(centers[1], centers[0])])


def _keep_percent() -> int:
    return int(_core.LIMITS["keep_patch_percent"])


def _pm(spacing_um: float) -> int:
    return int(spacing_um * PM_PER_UM + 0.5)


def _floors(grid_px: Longs, own_um: float, spacing_um: float) -> Longs:
    """Level-0 pixel of grid pixels' corners, rounded down."""
    return grid_px * _pm(spacing_um) // _pm(own_um)


def _tissue_share(rgb: npt.NDArray[np.uint8], spacing_um: float) -> float:
    """Share of tissue; finer tiles are averaged to 1 um/px, for which the rule is."""
    step = max(1, round(1.0 / spacing_um))
    side = rgb.shape[0] // step
    if step > 1:
        blocks = rgb[: side * step, : side * step].reshape(side, step, side, step, 3)
        rgb = blocks.mean((1, 3)).round().astype(np.uint8)
    return float(tissue_mask(rgb).astype(bool).mean())


def _tiles_along(slide: Slide, spacing_um: float, tile_px: int) -> tuple[int, int]:
    counts = [
        -(-size * _pm(own) // (_pm(spacing_um) * tile_px))
        for size, own in zip(slide.dimensions, slide.spacing_um, strict=True)
    ]
    return counts[0], counts[1]


def _digest(path: Path) -> str:
    from her2fast.models.trust import sha256_file

    return sha256_file(path)
