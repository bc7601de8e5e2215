# SPDX-License-Identifier: Apache-2.0
"""Anatomy: cords and islands of tumor; fibers, lymphocytes, vessels, open spaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from phantom_second.camera import Stains
from phantom_second.packing import Cells, Floats, Indices, paint, sequential_addition

#: Membrane width, um, mean and spread: Scheel et al., Diagn Pathol 2018;13:19. Class 0
#: has next to no membrane; the width serves what little there is.
BAND_UM = ((0.5, 0.05), (0.64, 0.10), (1.0, 0.23), (2.14, 0.40))
#: Density of stained membrane at DAB's peak, and of the cytoplasm; lowest and highest
#: of a slide. Complete in 2+ and 3+, in arcs in 1+.
MEMBRANE = ((0.0, 0.1), (0.45, 0.75), (0.7, 1.2), (1.3, 2.4))
COMPLETE = ((0.0, 0.15), (0.3, 0.6), (0.75, 1.0), (1.0, 1.1))
CYTOPLASM = ((0.0, 0.03), (0.02, 0.09), (0.05, 0.16), (0.1, 0.35))
#: Coarse fields are computed on this grid.
COARSE_UM = 4.0
BATCH = 1024
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tissue:
    """Stains and truth."""

    stains: Stains
    class_map: npt.NDArray[np.int8]  # (H, W)


class Fields:
    """Coarse random fields over the picture."""

    def __init__(self, shape: tuple[int, int], spacing_um: float) -> None:
        self.shape, self.spacing_um = shape, spacing_um
        rows, columns = (int(np.ceil(s * spacing_um / COARSE_UM)) + 2 for s in shape)
        self.coarse = (rows, columns)

    def balls(
        self, rng: np.random.Generator, spots: npt.NDArray[np.floating], size_um: float
    ) -> Floats:
        """Blurred spots, (k, 2) in um; the sum has its highest value at 1."""
        field = np.zeros(self.coarse, np.float32)
        at = (spots / COARSE_UM).astype(np.int64)
        inside = ((at >= 0) & (at < np.array(self.coarse))).all(1)
        weight = rng.uniform(0.6, 1.4, len(spots)).astype(np.float32)
        np.add.at(field, tuple(at[inside].T), weight[inside])
        field = ndimage.gaussian_filter(field, size_um / COARSE_UM, mode="constant")
        return np.asarray(field / max(float(field.max()), 1e-9), np.float32)

    def noise(self, rng: np.random.Generator, size_um: float) -> Floats:
        """Noise of unit variance with a power-law spectrum cut at `size_um`."""
        white = rng.standard_normal(self.coarse, np.float32)
        spectrum = fft.rfft2(white)
        fy = fft.fftfreq(self.coarse[0])[:, None] / COARSE_UM
        fx = fft.rfftfreq(self.coarse[1])[None, :] / COARSE_UM
        spectrum = spectrum / (1.0 + (np.hypot(fy, fx) * size_um) ** 2)
        field = np.asarray(fft.irfft2(spectrum, self.coarse), np.float32)
        return np.asarray((field - field.mean()) / max(float(field.std()), 1e-9), "f4")

    def full(self, field: Floats) -> Floats:
        """The coarse field at every pixel, linear in between."""
        step = self.spacing_um / COARSE_UM
        out = ndimage.affine_transform(
            field, (step, step), output_shape=self.shape, order=1, mode="nearest"
        )
        return np.asarray(out, np.float32)

    def at(self, field: Floats, y_um: Floats, x_um: Floats) -> Floats:
        """Nearest coarse values at points."""
        row = np.clip(y_um / COARSE_UM, 0, self.coarse[0] - 1).astype(np.int64)
        column = np.clip(x_um / COARSE_UM, 0, self.coarse[1] - 1).astype(np.int64)
        return np.asarray(field[row, column])


def _walks(
    rng: np.random.Generator, size_um: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Points along branching cords."""
    count = max(2, int(size_um[0] * size_um[1] / rng.uniform(4e4, 1.5e5)))
    steps = 40
    start = rng.uniform((0, 0), size_um, (count, 2))
    turn = np.cumsum(rng.normal(0, 0.25, (count, steps)), 1)
    turn += rng.uniform(0, 2 * np.pi, (count, 1))
    path = np.cumsum(np.stack([np.sin(turn), np.cos(turn)], -1) * 8.0, 1)
    return np.asarray((start[:, None] + path).reshape(-1, 2))


def _tumor_field(rng: np.random.Generator, fields: Fields) -> Floats:
    """Positive in tumor; islands, cords or both; holes for lumens."""
    size = (fields.shape[0] * fields.spacing_um, fields.shape[1] * fields.spacing_um)
    area = size[0] * size[1]
    islands = rng.uniform((0, 0), size, (max(2, int(area / rng.uniform(2e4, 1e5))), 2))
    field = fields.balls(rng, islands, float(rng.uniform(25, 60)))
    if rng.random() < 0.6:
        cords = fields.balls(rng, _walks(rng, size), float(rng.uniform(9, 20)))
        field = np.maximum(field / max(float(field.mean()), 1e-9), 0) * rng.uniform(
            0.1, 1.0
        ) + cords / max(float(cords.mean()), 1e-9)
    field = field / max(float(field.std()), 1e-9)
    field = field + 0.12 * fields.noise(rng, 60.0)
    field = field - float(np.quantile(field, 1.0 - rng.uniform(0.3, 0.75)))
    if rng.random() < 0.5:
        holes = rng.uniform(
            (0, 0), size, (max(1, int(area / rng.uniform(4e3, 2e4))), 2)
        )
        hollow = fields.balls(rng, holes, float(rng.uniform(6, 12)))
        field = np.where(hollow > rng.uniform(0.35, 0.6), -np.abs(field) - 0.1, field)
    return np.asarray(field, np.float32)


def _classes(
    rng: np.random.Generator,
    fields: Fields,
    tumor: Floats,
    mixture: tuple[float, float, float, float],
) -> Floats:
    """A class for each coarse cell; neighbors in a random order of the classes."""
    slope = rng.normal(0, 1, 2)
    rows, columns = np.indices(fields.coarse)
    rank = slope[0] * rows / fields.coarse[0] + slope[1] * columns / fields.coarse[1]
    rank = rank + rng.uniform(0.3, 1.2) * fields.noise(rng, 400.0)
    order = rng.permutation(4)
    inside = rank[tumor > 0.0]
    out = np.full(fields.coarse, float(order[-1]), np.float32)
    if inside.size == 0:
        return out
    below = np.cumsum([mixture[k] for k in order])
    cuts = np.quantile(inside, np.clip(below, 0.0, 1.0))
    for kind, share, cut in list(zip(order, below, cuts, strict=True))[::-1]:
        if mixture[kind] <= 0.0:
            continue
        out[(rank <= cut) | (share >= 1.0 - 1e-9)] = kind
    return out


def _pack(
    rng: np.random.Generator,
    fields: Fields,
    where: Floats,
    mean_um: float,
    closeness: float,
    tries: float,
) -> tuple[Floats, Floats, Floats]:
    """Centers (y, x) and radii of cells where a coarse field is positive."""
    size = (fields.shape[0] * fields.spacing_um, fields.shape[1] * fields.spacing_um)
    count = int(tries * size[0] * size[1] / (np.pi * mean_um**2))
    y = rng.uniform(0, size[0], count).astype(np.float32)
    x = rng.uniform(0, size[1], count).astype(np.float32)
    inside = fields.at(where, y, x) > 0.0
    y, x = y[inside], x[inside]
    radius = (mean_um * np.exp(rng.normal(0, 0.14, y.size))).astype(np.float32)
    kept = sequential_addition(np.stack([y, x], 1), radius, closeness)
    return y[kept], x[kept], radius[kept]


def _fibers(rng: np.random.Generator, fields: Fields) -> Floats:
    """Collagen: noise filtered along four directions, blended by a slow field."""
    side = 512
    white = fft.rfft2(rng.standard_normal((side, side), np.float32))
    fy, fx = fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :]
    wide_px = float(rng.uniform(1.2, 3.0)) / fields.spacing_um
    long_px = wide_px * float(rng.uniform(5, 14))
    angle = fields.full(fields.noise(rng, 250.0)) * np.float32(rng.uniform(0.3, 1.2))
    angle += np.float32(rng.uniform(0, np.pi))
    out = np.zeros(fields.shape, np.float32)
    repeat = (-(-fields.shape[0] // side), -(-fields.shape[1] // side))
    for turn in np.arange(4) * np.pi / 4:
        along = fx * np.cos(turn) + fy * np.sin(turn)
        across = fy * np.cos(turn) - fx * np.sin(turn)
        keep = np.exp(-20.0 * ((along * long_px) ** 2 + (across * wide_px) ** 2))
        tile = np.asarray(fft.irfft2(white * keep, (side, side)), np.float32)
        tile /= max(float(tile.std()), 1e-9)
        weight = np.clip(np.cos(2.0 * (angle - np.float32(turn))), 0.0, None)
        whole = np.tile(tile, repeat)[: fields.shape[0], : fields.shape[1]]
        out += weight * whole
    return out


def _cells(
    rng: np.random.Generator,
    place: tuple[Floats, Floats, Floats],
    kind: npt.NDArray[np.int8],
    *,
    aspect: tuple[float, float],
    angle: Floats,
    nucleus: float,
) -> Cells:
    y, x, radius = place
    count = y.size
    where = rng.beta(2, 2)
    band = np.array([m for m, _ in BAND_UM], np.float32)[kind]
    band = band + np.array([s for _, s in BAND_UM])[kind] * np.clip(
        rng.standard_normal(count), -2, 2
    )
    complete = np.array([low + where * (high - low) for low, high in COMPLETE])[kind]
    return Cells(
        x,
        y,
        radius,
        rng.uniform(*aspect, count).astype(np.float32),
        (angle + rng.normal(0, 0.6, count)).astype(np.float32),
        rng.uniform(-0.09, 0.09, (count, 2)).astype(np.float32),
        rng.uniform(0, 2 * np.pi, (count, 4)).astype(np.float32),
        np.maximum(band, 0.2).astype(np.float32),
        np.clip(complete + rng.normal(0, 0.08, count), 0, 1.2).astype(np.float32),
        (radius * nucleus * rng.uniform(0.8, 1.2, count)).astype(np.float32),
        rng.uniform(-0.2, 0.2, (count, 2)).astype(np.float32),
    )


def _levels(rng: np.random.Generator, table: tuple[tuple[float, float], ...]) -> Floats:
    where = rng.beta(2, 2)
    return np.array([low + where * (high - low) for low, high in table], np.float32)


def draw(
    rng: np.random.Generator,
    shape: tuple[int, int],
    spacing_um: float,
    mixture: tuple[float, float, float, float],
) -> Tissue:
    """Stains and truth of one picture."""
    fields = Fields(shape, spacing_um)
    tumor = _tumor_field(rng, fields)
    inside = fields.full(tumor) > 0.0
    region = _classes(rng, fields, tumor, mixture)
    rows = (np.arange(shape[0]) * (spacing_um / COARSE_UM)).astype(np.int64)
    columns = (np.arange(shape[1]) * (spacing_um / COARSE_UM)).astype(np.int64)
    kinds = region.astype(np.int8)[rows[:, None], columns[None, :]]
    class_map = np.where(inside, kinds, np.int8(-1)).astype(np.int8)

    # Stroma, drawn everywhere; tumor covers it.
    fibers = _fibers(rng, fields)
    base, contrast = float(rng.uniform(0.02, 0.09)), float(rng.uniform(0.3, 0.8))
    hematoxylin = base * np.clip(1.0 + contrast * fibers, 0.05, 3.0)
    hematoxylin = np.where(fibers < -rng.uniform(1.2, 2.2), 0.01, hematoxylin)
    dab = np.zeros(shape, np.float32)
    if rng.random() < 0.35:  # background staining of stroma
        dab += np.float32(rng.uniform(0.0, 0.06)) * np.clip(1.0 + 0.5 * fibers, 0, 2)
    flat_h, flat_d = hematoxylin.astype(np.float32).ravel(), dab.ravel()
    grain = rng.standard_normal(shape, np.float32)
    grain = ndimage.uniform_filter(grain, max(1, round(1.2 / spacing_um)))
    grain = (grain / max(float(grain.std()), 1e-9)).ravel()
    slow = fields.full(fields.noise(rng, 90.0)).ravel()

    def nuclei(where: Floats, mean_um: float, aspect: tuple[float, float]) -> None:
        place = _pack(rng, fields, where, mean_um, float(rng.uniform(1.0, 2.2)), 1.0)
        count = place[0].size
        if count == 0:
            return
        angle = np.full(count, rng.uniform(0, np.pi), np.float32)
        cells = _cells(
            rng, place, np.zeros(count, "i1"), aspect=aspect, angle=angle, nucleus=1.0
        )
        tone = rng.uniform(0.2, 0.5) * rng.uniform(0.4, 1.5, count)
        for begin in range(0, count, BATCH):
            order: Indices = np.arange(begin, min(begin + BATCH, count))
            spot = paint(cells, order, shape, spacing_um)
            dark = tone[spot.cell] * spot.nucleus * (1.0 + 0.3 * grain[spot.at])
            flat_h[spot.at] = np.maximum(flat_h[spot.at], dark)

    nuclei(0.1 - tumor, float(rng.uniform(2.0, 3.2)), (1.3, 3.5))
    crowd = fields.noise(rng, 150.0) - np.float32(rng.uniform(0.9, 2.5))
    nuclei(np.where(tumor < 0.1, crowd, -1.0), float(rng.uniform(2.8, 3.6)), (1, 1.3))

    # Glass, fat and vessels lie in stroma only.
    blood = np.zeros(shape, np.float32)
    outside = ~inside
    vessel = (fields.full(fields.noise(rng, 60.0)) > rng.uniform(2.0, 3.0)) & outside
    red = rng.random(shape, np.float32)
    blood[vessel] = (0.25 + 0.5 * ndimage.uniform_filter(red, 5) ** 2)[vessel]
    flat_h[vessel.ravel()] *= 0.15
    open_at = fields.full(fields.noise(rng, 500.0)) > rng.uniform(1.0, 3.0)
    flat_h[(open_at & outside).ravel()] = 0.0
    flat_d[(open_at & outside).ravel()] = 0.0

    # Tumor: packed cells, painted from the last taken to the first.
    mean_um = float(rng.uniform(5.2, 9.0))
    place = _pack(rng, fields, tumor, mean_um, float(rng.uniform(0.68, 0.78)), 6.0)
    flat_in = inside.ravel()
    # Neighbors press on each other: most gaps close, and outlines flatten.
    place = (place[0], place[1], place[2] * np.float32(rng.uniform(1.08, 1.25)))
    matrix = np.float32(rng.uniform(0.01, 0.08))
    flat_h[flat_in] = matrix
    flat_d[flat_in] = 0.0
    line_d, line_share = np.zeros(flat_h.size, "f4"), np.zeros(flat_h.size, "f4")
    count = place[0].size
    if count:
        own = fields.at(region, place[0], place[1]).astype(np.int8)
        # A few cells differ by one class from where they lie.
        step = rng.choice((-1, 0, 1), count, p=(0.03, 0.94, 0.03))
        moved = np.clip(own + step, 0, 3)
        wanted = np.array([share > 0.0 for share in mixture])
        own = np.where(wanted[moved], moved, own).astype(np.int8)
        angle = fields.at(fields.noise(rng, 120.0), place[0], place[1])
        cells = _cells(
            rng,
            place,
            own,
            aspect=(1.0, float(rng.uniform(1.2, 1.9))),
            angle=angle,
            nucleus=float(rng.uniform(0.45, 0.68)),
        )
        membrane, cytoplasm = _levels(rng, MEMBRANE)[own], _levels(rng, CYTOPLASM)[own]
        membrane *= np.exp(rng.normal(0, 0.2, count)).astype(np.float32)
        tone = (rng.uniform(0.2, 0.6) * rng.uniform(0.6, 1.4, count)).astype("f4")
        pale = (rng.uniform(0.04, 0.16) * rng.uniform(0.7, 1.3, count)).astype("f4")
        envelope = np.float32(rng.uniform(0.1, 0.8))
        mottle = np.float32(rng.uniform(0.1, 0.35))
        flat_class = class_map.ravel()  # a view
        backward = np.arange(count)[::-1]
        for begin in range(0, count, BATCH):
            spot = paint(cells, backward[begin : begin + BATCH], shape, spacing_um)
            at, cell = spot.at, spot.cell
            body = 1.0 - spot.nucleus
            texture = 1.0 + mottle * grain[at]
            dark = tone[cell] * spot.nucleus * (texture + envelope * spot.rim)
            flat_h[at] = dark + pale[cell] * (0.3 + 0.7 * body) * texture
            flat_d[at] = cytoplasm[cell] * (0.35 + 0.65 * body) * texture
            line_share[at] = spot.share
            line_d[at] = membrane[cell] * np.clip(1.0 + 0.2 * slow[at], 0.4, 1.6)
            # Also past the field's edge: a tumor ends where its cells end.
            flat_class[at] = own[cell]
    granules = grain > rng.uniform(3.6, 4.6)
    flat_d[granules & ~open_at.ravel()] += np.float32(rng.uniform(0.2, 0.9))
    stains = Stains(
        np.clip(flat_h, 0.0, None).reshape(shape),
        np.clip(flat_d, 0.0, None).reshape(shape),
        line_d.reshape(shape),
        line_share.reshape(shape),
        blood,
    )
    return Tissue(stains, class_map)
