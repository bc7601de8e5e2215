# SPDX-License-Identifier: Apache-2.0
"""What lies over the tissue of a phantom slide, or went wrong with it.

Folds double the stain; pen, separator, dust and air take light; blur spreads it. All
are planned once per slide and then asked for one window at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2fast.phantom.fields import Floats, fibers, generator
from her2fast.phantom.plan import COARSE_UM, Box, Coarse, Plan, sample, seed_of
from her2fast.phantom.spec import SlideSpec

#: Optical density of R, G, B of a full stroke. Dyes of felt-tip pens: one or two strong
#: bands; black is a mixture that absorbs evenly.
INKS: dict[str, tuple[float, float, float]] = {
    "blue": (1.15, 0.70, 0.12),
    "green": (1.10, 0.32, 0.72),
    "black": (1.35, 1.30, 1.25),
    "red": (0.06, 0.95, 0.85),
}
SEPARATOR_WIDTH_UM = 60.0
#: A fold's upper layer lies out of focus.
FOLD_BLUR_UM = 1.2
#: What is looked up beyond this from a stroke's middle counts as far.
FAR_UM = 1e6


@dataclass(frozen=True)
class Stroke:
    """Ink along a curve."""

    ink: tuple[float, float, float]
    width_um: float
    far_um: Coarse  # distance to the curve, (H, W)
    seed: int


@dataclass(frozen=True)
class Fold:
    """Tissue that lies doubled along a curve."""

    width_um: float
    far_um: Coarse
    shift_um: tuple[float, float]  # where the upper layer comes from


@dataclass(frozen=True)
class Disc:
    """A bubble of air or a speck of dust."""

    x_um: float
    y_um: float
    radius_um: float
    density: float


@dataclass(frozen=True)
class Artifacts:
    """All of one slide."""

    strokes: tuple[Stroke, ...]
    folds: tuple[Fold, ...]
    bubbles: tuple[Disc, ...]
    dust: tuple[Disc, ...]
    blur: tuple[tuple[float, Box | None], ...]

    @property
    def reach_um(self) -> float:
        """How far beyond a window its pixels may depend on."""
        blurs = [sigma for sigma, _ in self.blur]
        blurs += [FOLD_BLUR_UM] if self.folds else []
        blurs += [3.0] if self.bubbles else []
        shifts = [max(abs(x) for x in fold.shift_um) for fold in self.folds]
        return 4.0 * sum(blurs) + max(shifts, default=0.0)


def plan_artifacts(spec: SlideSpec, plan: Plan, seed: int) -> Artifacts:
    """Where each of them lies."""
    wanted = spec.artifacts
    rng = generator(seed_of(seed, "artifacts"))
    shape = plan.label.shape
    strokes = []
    on_glass = 0
    for index, pen in enumerate(wanted.pen):
        if pen.over == "glass":
            curve = _along_edge(rng, spec, pen.width_um, on_glass)
            on_glass += 1
        else:
            curve = _across(rng, plan.free_um)
        strokes.append(
            Stroke(
                INKS[pen.ink],
                pen.width_um,
                _distance(curve, shape),
                seed_of(seed, "pen", index),
            )
        )
    if spec.control.separator and plan.separator_x_um is not None:
        x_um = plan.separator_x_um
        line = np.array([[x_um, 0.0], [x_um, spec.slide.height_um]])
        far = _distance(line, shape)
        ink = Stroke(INKS["black"], SEPARATOR_WIDTH_UM, far, seed_of(seed, "line"))
        strokes.append(ink)
    folds = []
    for _ in range(wanted.folds):
        curve, across = _fold_curve(rng, plan)
        width = wanted.fold_width_um * rng.uniform(0.8, 1.2)
        push = across * rng.uniform(0.6, 1.0) * width
        shift = (float(push[0]), float(push[1]))
        folds.append(Fold(width, _distance(curve, shape), shift))
    size = (spec.slide.width_um, spec.slide.height_um)
    bubbles = [
        Disc(
            rng.uniform(0.1, 0.9) * size[0],
            rng.uniform(0.1, 0.9) * size[1],
            rng.uniform(80.0, 280.0),
            0.8,
        )
        for _ in range(wanted.bubbles)
    ]
    dust = [
        Disc(
            rng.uniform() * size[0],
            rng.uniform() * size[1],
            rng.uniform(2.0, 12.0),
            rng.uniform(0.3, 1.2),
        )
        for _ in range(wanted.dust)
    ]
    blur = [(blur.sigma_um, blur.region_um) for blur in wanted.blur]
    return Artifacts(
        tuple(strokes), tuple(folds), tuple(bubbles), tuple(dust), tuple(blur)
    )


Curve = npt.NDArray[np.float64]  # (n, 2) of x, y in um


def _along_edge(
    rng: np.random.Generator, spec: SlideSpec, width_um: float, number: int
) -> Curve:
    """A stroke beside the tissue: above it, below it, then on the left."""
    place = 30.0 + width_um / 2.0
    size = np.array([spec.slide.width_um - spec.strip_um, spec.slide.height_um])
    share = np.linspace(rng.uniform(0.02, 0.15), rng.uniform(0.6, 0.9), 24)
    wave = rng.normal(0.0, 0.04 * width_um, 24).cumsum() * 0.5
    along = share * (size[0] if number % 3 < 2 else size[1])
    if number % 3 == 0:
        return np.stack([along, place + wave], 1)
    if number % 3 == 1:
        return np.stack([along, size[1] - place + wave], 1)
    return np.stack([place + wave, along], 1)


def _across(rng: np.random.Generator, box: Box) -> Curve:
    """A stroke through the tissue, as a pathologist marks a spot."""
    middle = np.array([(box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0])
    half = np.array([(box[2] - box[0]) / 2.0, (box[3] - box[1]) / 2.0])
    turn = rng.uniform(0.0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    aside = np.array([-along[1], along[0]])
    t = np.linspace(-1.0, 1.0, 48)
    wave = 0.12 * np.sin(t * rng.uniform(2.0, 4.0) + rng.uniform(0.0, 6.28))
    offset = rng.uniform(-0.25, 0.25)
    return np.asarray(
        middle + (t[:, None] * along + (wave + offset)[:, None] * aside) * half
    )


def _fold_curve(rng: np.random.Generator, plan: Plan) -> tuple[Curve, Curve]:
    """A curve through the patient's tissue, and the direction across it."""
    own = np.array([kind is None for kind in (None, *plan.control_class)])
    own[0] = False
    rows, columns = np.nonzero(own[plan.label] & (plan.depth_um > 60.0))
    if rows.size == 0:
        rows, columns = np.nonzero(own[plan.label])
    pick = int(rng.integers(max(rows.size, 1)))
    middle = (np.array([columns[pick], rows[pick]]) + 0.5) * COARSE_UM
    turn = rng.uniform(0.0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    t = np.linspace(-0.5, 0.5, 40)[:, None] * rng.uniform(500.0, 1400.0)
    bend = 60.0 * np.sin(t / rng.uniform(150.0, 400.0) + rng.uniform(0.0, 6.28))
    return np.asarray(middle + t * along + bend * across), across


def _distance(curve: Curve, shape: tuple[int, ...]) -> Coarse:
    """Distance to a polyline on the coarse grid; its ends are round."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    at = np.concatenate([[0.0], steps.cumsum()])
    fine = np.arange(0.0, at[-1], COARSE_UM / 2.0)
    x = np.interp(fine, at, curve[:, 0]) / COARSE_UM
    y = np.interp(fine, at, curve[:, 1]) / COARSE_UM
    there = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    free = np.ones(shape, np.bool_)
    free[y[there].astype(np.int64), x[there].astype(np.int64)] = False
    if free.all():
        return np.full(shape, FAR_UM, np.float32)
    return np.asarray(ndimage.distance_transform_edt(free) * COARSE_UM, np.float32)


@dataclass(frozen=True)
class Window:
    """Centers of the pixels of a part of the slide, um."""

    x_um: Floats  # (w,)
    y_um: Floats  # (h,)

    @staticmethod
    def over(x0: int, y0: int, width: int, height: int, spacing_um: float) -> Window:
        """Pixels [x0, x0 + width) x [y0, y0 + height) of a grid at `spacing_um`."""
        x = (np.arange(x0, x0 + width, dtype=np.float64) + 0.5) * spacing_um
        y = (np.arange(y0, y0 + height, dtype=np.float64) + 0.5) * spacing_um
        return Window(x.astype(np.float32), y.astype(np.float32))

    def near(self, disc: Disc, reach: float) -> bool:
        """Whether a disc of `reach` radii touches it."""
        size = disc.radius_um * reach
        return bool(
            self.x_um[0] - size < disc.x_um < self.x_um[-1] + size
            and self.y_um[0] - size < disc.y_um < self.y_um[-1] + size
        )

    def radius(self, disc: Disc) -> Floats:
        """Distance to the disc's middle, (h, w), um."""
        x = self.x_um[None, :] - np.float32(disc.x_um)
        y = self.y_um[:, None] - np.float32(disc.y_um)
        return np.asarray(np.hypot(x, y), np.float32)


def touches(art: Artifacts, window: Window) -> bool:
    """Whether anything may lie in a window; never wrong where it says no."""
    discs = [(bubble, 1.5) for bubble in art.bubbles] + [(d, 3.0) for d in art.dust]
    if any(window.near(disc, reach) for disc, reach in discs):
        return True
    # Distances change by no more than the way between two samples: 8 px apart.
    x, y = window.x_um[::8], window.y_um[::8]
    step_um = 12.0 * float(window.x_um[1] - window.x_um[0]) + 2.0 * COARSE_UM
    curves = [(stroke.far_um, stroke.width_um) for stroke in art.strokes]
    curves += [(fold.far_um, fold.width_um) for fold in art.folds]
    for far_um, width_um in curves:
        if float(sample(far_um, x, y).min()) < width_um + step_um:
            return True
    return any(_region_mask(region, window).any() for _, region in art.blur)


def fold_mask(fold: Fold, window: Window) -> Floats:
    """Where the tissue lies doubled, in [0, 1]."""
    far = sample(fold.far_um, window.x_um, window.y_um)
    inside = (fold.width_um / 2.0 - far) / np.float32(2.0)
    return np.asarray(np.clip(inside, 0.0, 1.0), np.float32)


def double(
    amounts: Floats, art: Artifacts, window: Window, spacing_um: float
) -> Floats:
    """Adds the upper layer of every fold."""
    for fold in art.folds:
        mask = fold_mask(fold, window)
        if not mask.any():
            continue
        step = [round(part / spacing_um) for part in fold.shift_um]
        upper = np.roll(amounts, (step[1], step[0]), axis=(1, 2))
        amounts = amounts + mask * upper
    return amounts


def shade(picture: Floats, art: Artifacts, window: Window) -> None:
    """Takes away the light that ink, dust and air keep; (h, w, 3), in place."""
    for stroke in art.strokes:
        far = sample(stroke.far_um, window.x_um, window.y_um)
        if float(far.min()) > stroke.width_um:
            continue
        rng = generator(stroke.seed)
        x, y = np.meshgrid(window.x_um, window.y_um)
        # Streaks run along the stroke: the same distance from its middle, the same ink.
        streaks = fibers(rng, x + y, far, stroke.width_um / 8.0)
        edge = stroke.width_um * (0.5 + 0.02 * fibers(rng, x - y, x + y, 60.0))
        cover = np.clip((edge - far) / np.float32(14.0) + 0.5, 0.0, 1.0)
        cover *= np.clip(0.95 + 0.10 * streaks, 0.5, 1.2)
        # Ink gathers at the border of a stroke.
        rim = np.exp(-(((edge - far) / np.float32(0.08 * stroke.width_um)) ** 2))
        cover *= 1.0 + 0.25 * rim
        for channel, density in enumerate(stroke.ink):
            picture[..., channel] *= np.exp(cover * np.float32(-np.log(10.0) * density))
    for speck in art.dust:
        if window.near(speck, 3.0):
            far = window.radius(speck)
            soft = np.exp(-((far / np.float32(speck.radius_um)) ** 4))
            light = np.exp(soft * np.float32(-np.log(10.0) * speck.density))
            picture *= light[..., None]
    for bubble in art.bubbles:
        if window.near(bubble, 1.5):
            off = window.radius(bubble) - np.float32(bubble.radius_um)
            rim = np.exp(-((off / np.float32(6.0)) ** 2))
            glare = np.where(off < -20.0, 1.03, 1.0).astype(np.float32)
            light = glare * np.exp(rim * np.float32(-np.log(10.0) * bubble.density))
            picture *= light[..., None]


def defocus(
    picture: Floats, art: Artifacts, window: Window, spacing_um: float
) -> Floats:
    """Spreads light where the slide is out of focus."""
    for fold in art.folds:
        picture = _mix(picture, fold_mask(fold, window), FOLD_BLUR_UM / spacing_um)
    for bubble in art.bubbles:
        if window.near(bubble, 1.0):
            inside = np.clip(bubble.radius_um - window.radius(bubble), 0.0, 1.0)
            picture = _mix(picture, inside, 3.0 / spacing_um)
    for sigma_um, region in art.blur:
        picture = _mix(picture, _region_mask(region, window), sigma_um / spacing_um)
    return picture


def _region_mask(region: Box | None, window: Window) -> Floats:
    """1 inside, fading over 40 um."""
    if region is None:
        return np.ones((window.y_um.size, window.x_um.size), np.float32)
    across = np.minimum(window.x_um - region[0], region[2] - window.x_um)
    down = np.minimum(window.y_um - region[1], region[3] - window.y_um)
    inside = np.minimum(across[None, :], down[:, None])
    return np.asarray(np.clip(inside / 40.0 + 0.5, 0.0, 1.0), np.float32)


def _mix(picture: Floats, mask: Floats, sigma_px: float) -> Floats:
    if not mask.any():
        return picture
    soft = ndimage.gaussian_filter(picture, (sigma_px, sigma_px, 0.0))
    share = mask[..., None]
    return np.asarray(picture + share * (soft - picture), np.float32)
