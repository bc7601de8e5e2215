# SPDX-License-Identifier: Apache-2.0
"""A whole phantom slide: lobules drawn one by one, then exposed window by window.

Memory holds the drawn tissue in half precision, never the glass and never the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from her2fast import guidelines
from her2fast.phantom import compose_scene
from her2fast.phantom.artifacts import (
    Artifacts,
    Disc,
    Window,
    defocus,
    double,
    plan_artifacts,
    shade,
    touches,
)
from her2fast.phantom.blood import RedCells, draw_red_cells
from her2fast.phantom.cells import CellTable
from her2fast.phantom.fields import Cells, Floats, fibers, generator, per_cell
from her2fast.phantom.ground import Ground, Tissue
from her2fast.phantom.layout import Grid
from her2fast.phantom.mixtures import draw_mixture
from her2fast.phantom.optics import (
    PROFILES,
    Profile,
    expose,
    jittered,
    profile_by_name,
)
from her2fast.phantom.plan import (
    COARSE_UM,
    Lobule,
    Plan,
    draw_plan,
    sample,
    seed_of,
)
from her2fast.phantom.spec import SlideSpec

SCORES = ("0", "1+", "2+", "3+")
#: Windows that are exposed at once, px; also what one stream of noise covers.
WINDOW_PX = 1024
#: The score of what was drawn may miss the wanted one by a cell: draw again.
MAX_ATTEMPTS = 6
#: Label for training and studies (docs/decisions/pham.md).
LABEL_RULES = "pham-2022"

#: Noise is taken from a picture of nothing on this white, where nothing is clipped.
_GRAY = (128.0, 128.0, 128.0)

Mixture = tuple[float, float, float, float]
OnDrawn = Callable[[int, int], None]


@dataclass(frozen=True)
class Patch:
    """One lobule as drawn, in its window at level 0."""

    lobule: Lobule
    own: npt.NDArray[np.bool_]  # (h, w); whatever is not is no part of the lobule
    amounts: npt.NDArray[np.float16]  # (planes, h, w)
    class_map: npt.NDArray[np.int8]
    tissue: npt.NDArray[np.uint8]  # values of `ground.Tissue`
    membrane: npt.NDArray[np.bool_]
    cells: CellTable  # places on the slide


@dataclass(frozen=True)
class Slide:
    """A slide that can be photographed."""

    spec: SlideSpec
    seed: int
    plan: Plan
    patches: tuple[Patch, ...]
    artifacts: Artifacts
    look: Profile
    wanted: str | None  # score that the mixture was drawn for
    mixture: Mixture
    attempts: int

    def class_px(self, *, control: bool = False) -> list[int]:
        """Tumor pixels of 0, 1+, 2+ and 3+ at level 0."""
        counts = np.zeros(4, np.int64)
        for patch in self.patches:
            if patch.lobule.control == control:
                kinds = patch.class_map[patch.class_map >= 0]
                counts += np.bincount(kinds, minlength=4)
        return [int(count) for count in counts]


def slide_seed(seed: int, index: int) -> int:
    """The seed of slide `index` of a cohort."""
    return seed_of(seed, "slide", index)


def draw_slide(
    spec: SlideSpec, seed: int, index: int = 0, on_drawn: OnDrawn | None = None
) -> Slide:
    """Draws slide `index` of a cohort: a pure function of its arguments."""
    own_seed = slide_seed(seed, index)
    plan = draw_plan(spec, own_seed)
    look = draw_look(spec, own_seed, index)
    wanted = None
    if spec.tumor.mixture is None:
        score = spec.tumor.score
        wanted = SCORES[index % 4] if score == "cycle" else str(score)
    drawn: Slide | None = None
    for attempt in range(MAX_ATTEMPTS):
        mixture = spec.tumor.mixture
        if mixture is None:
            assert wanted is not None
            rng = generator(seed_of(own_seed, "mixture", attempt))
            mixture = draw_mixture(rng, wanted)
        shares = lobule_mixtures(spec, plan, own_seed, mixture)
        patches = []
        for number, lobule in enumerate(plan.lobules):
            # Control tissue does not change from one attempt to the next.
            kept = drawn.patches[number] if drawn and lobule.control else None
            patches.append(
                kept
                or draw_patch(spec, plan, own_seed, number, shares[number], attempt)
            )
            if on_drawn is not None:
                on_drawn(number + 1, len(plan.lobules))
        art = plan_artifacts(spec, plan, own_seed)
        drawn = Slide(
            spec,
            own_seed,
            plan,
            tuple(patches),
            art,
            look,
            wanted,
            mixture,
            attempt + 1,
        )
        score_now = guidelines.decide(drawn.class_px(), LABEL_RULES).score
        if wanted is None or score_now == wanted:
            break
    assert drawn is not None
    return drawn


def draw_look(spec: SlideSpec, seed: int, index: int) -> Profile:
    """Laboratory and scanner of a slide; its noise and JPEG are added later."""
    name = spec.scanner.profile
    chosen = (
        PROFILES[index % len(PROFILES)] if name == "cycle" else profile_by_name(name)
    )
    if not spec.scanner.jitter:
        return chosen
    return jittered(chosen, generator(seed_of(seed, "look")))


def lobule_mixtures(
    spec: SlideSpec, plan: Plan, seed: int, mixture: Mixture
) -> list[Mixture | None]:
    """Class shares of every lobule; None: no tumor."""
    rng = generator(seed_of(seed, "lobule mixtures"))
    out: list[Mixture | None] = [None] * len(plan.lobules)
    own = []
    for index, lobule in enumerate(plan.lobules):
        kind = plan.control_class[lobule.piece]
        if kind is not None:
            pure = [float(k == kind) for k in range(4)]
            out[index] = (pure[0], pure[1], pure[2], pure[3])
        else:
            own.append(index)
    order = [own[i] for i in rng.permutation(len(own))]
    # The largest lobule always holds tumor: no slide is without by chance.
    largest = max(own, key=lambda i: plan.lobules[i].area_um2, default=-1)
    holds = [i for i in order if i == largest or rng.random() >= spec.tumor.free_share]
    if not spec.tumor.clustered:
        for index in holds:
            out[index] = mixture
        return out
    # From the highest class down, each fills lobules until its area is spent.
    areas = {i: plan.lobules[i].area_um2 for i in holds}
    left = np.array(mixture) * sum(areas.values())
    for index in holds:
        share = np.zeros(4)
        room = areas[index]
        for kind in (3, 2, 1, 0):
            part = min(room, float(left[kind]))
            share[kind] += part
            left[kind] -= part
            room -= part
        share /= share.sum()
        out[index] = (
            float(share[0]),
            float(share[1]),
            float(share[2]),
            float(share[3]),
        )
    return out


def draw_patch(
    spec: SlideSpec,
    plan: Plan,
    seed: int,
    number: int,
    mixture: Mixture | None,
    attempt: int,
) -> Patch:
    """One lobule: its scene, cut to its outline, with a septum on inner borders."""
    lobule = plan.lobules[number]
    spacing = spec.slide.spacing_um
    scene = compose_scene(
        seed_of(seed, "scene", number, 0 if lobule.control else attempt),
        (lobule.width_px, lobule.height_px),
        spacing_um=spacing,
        mixture=mixture or (0.25, 0.25, 0.25, 0.25),
        tumor=mixture is not None,
        oversampling=1,
        mix=spec.background.mix,
    )
    window = Window.over(
        lobule.x_px, lobule.y_px, lobule.width_px, lobule.height_px, spacing
    )
    rng = generator(seed_of(seed, "septum", number))
    shape = scene.class_map.shape
    grid = Grid.over(shape, spacing)
    fray = 2.5 * grid.noise(rng, 9.0) + 4.0 * grid.noise(rng, 45.0)
    depth = sample(plan.depth_um, window.x_um, window.y_um)
    own = (depth + fray > 0.0) & _is_piece(plan, lobule, window)
    class_map = scene.class_map
    tissue = scene.tissue
    amounts = scene.amounts
    if spec.artifacts.blood:
        ground = Ground(amounts.copy(), tissue.copy())
        bled = _bleed(spec, plan, seed, window, ground)
        class_map = np.where(bled, np.int8(-1), class_map)
        amounts, tissue = ground.amounts, ground.tissue
    if lobule.cell >= 0:
        signed = np.where(plan.cell == lobule.cell, plan.edge_um, -plan.edge_um)
        inside_um = sample(signed.astype(np.float32), window.x_um, window.y_um)
        own &= inside_um > 0.0
        wide_um = rng.uniform(6.0, 16.0) * np.clip(
            1.0 + 0.4 * grid.noise(rng, 60.0), 0.4, 2.0
        )
        septum = inside_um < wide_um
        amounts = amounts.copy()
        amounts[:, septum] = 0.0
        amounts[0][septum] = _septum(plan, window, grid, seed)[septum]
        class_map = np.where(septum, np.int8(-1), class_map)
        tissue = np.where(septum, np.uint8(Tissue.STROMA), tissue)
    class_map = np.where(own, class_map, np.int8(-1))
    return Patch(
        lobule,
        own,
        amounts.astype(np.float16),
        class_map,
        np.where(own, tissue, np.uint8(Tissue.GLASS)),
        scene.membrane_mask & (class_map >= 0),
        _kept_cells(scene.cells, lobule, class_map, spacing),
    )


def _bleed(
    spec: SlideSpec, plan: Plan, seed: int, window: Window, ground: Ground
) -> npt.NDArray[np.bool_]:
    """Pools of red cells in place of tissue; where they lie depends on the slide."""
    rows, columns = np.nonzero(_is_own(plan))
    grid = Grid.over(ground.tissue.shape, spec.slide.spacing_um)
    everywhere = np.zeros(ground.tissue.shape, np.bool_)
    for index in range(spec.artifacts.blood):
        rng = generator(seed_of(seed, "blood", index))
        pick = int(rng.integers(rows.size))
        pool = Disc(
            float(columns[pick] + 0.5) * COARSE_UM,
            float(rows[pick] + 0.5) * COARSE_UM,
            float(rng.uniform(60.0, 220.0)),
            1.0,
        )
        look = RedCells.draw(rng, grid)
        if not window.near(pool, 1.3):
            continue
        x = window.x_um[None, :] - np.float32(pool.x_um)
        y = window.y_um[:, None] - np.float32(pool.y_um)
        turn = np.arctan2(y, x)
        edge = 1.0 + 0.2 * np.sin(2.0 * turn + 1.0) + 0.1 * np.sin(5.0 * turn)
        at = np.asarray(np.hypot(x, y) < pool.radius_um * edge, np.bool_)
        ground.amounts[:, at] = 0.0
        draw_red_cells(rng, grid, ground, at, look)
        everywhere |= at
    return everywhere


def _is_own(plan: Plan) -> npt.NDArray[np.bool_]:
    """Where the patient's tissue lies, on the coarse map."""
    own = np.array([False, *(kind is None for kind in plan.control_class)])
    return np.asarray(own[plan.label], np.bool_)


def _kept_cells(
    cells: CellTable,
    lobule: Lobule,
    class_map: npt.NDArray[np.int8],
    spacing_um: float,
) -> CellTable:
    """Cells whose center is tumor of this lobule, at their place on the slide."""
    height, width = class_map.shape
    columns = np.clip((cells.x_um / spacing_um).astype(np.int64), 0, width - 1)
    rows = np.clip((cells.y_um / spacing_um).astype(np.int64), 0, height - 1)
    kept = cells.take(np.flatnonzero(class_map[rows, columns] >= 0))
    return replace(
        kept,
        x_um=kept.x_um + np.float32(lobule.x_px * spacing_um),
        y_um=kept.y_um + np.float32(lobule.y_px * spacing_um),
    )


def _is_piece(plan: Plan, lobule: Lobule, window: Window) -> npt.NDArray[np.bool_]:
    """Pieces never touch: whatever is nearer to this one than to any other."""
    mine = (plan.label == lobule.piece + 1).astype(np.float32)
    others = ((plan.label > 0) & (plan.label != lobule.piece + 1)).astype(np.float32)
    near = sample(mine, window.x_um, window.y_um)
    far = sample(others, window.x_um, window.y_um)
    return np.asarray(near >= far, np.bool_)


def _septum(plan: Plan, window: Window, grid: Grid, seed: int) -> Floats:
    """Hematoxylin of fibers along the borders; the same from either side."""
    rng = generator(seed_of(seed, "septa"))
    across_x = sample(plan.across_x, window.x_um, window.y_um)
    across_y = sample(plan.across_y, window.x_um, window.y_um)
    turn = np.where(across_x < 0.0, -1.0, 1.0)
    x_um, y_um = np.meshgrid(window.x_um, window.y_um)
    along = turn * (across_x * y_um - across_y * x_um)
    across = turn * (across_x * x_um + across_y * y_um)
    streaks = fibers(rng, along, across, 1.8) + 0.5 * fibers(rng, along, across, 5.0)
    out = 0.05 * np.clip(1.0 + 0.5 * streaks, 0.1, 3.0)
    packing = Cells(rng)(along / 22.0, across / 9.0)
    length = np.hypot(packing.du * 22.0 / 5.5, packing.dv * 9.0 / 1.5)
    body = np.clip((1.0 - length) * 1.5 / grid.spacing_um + 0.5, 0.0, 1.0)
    body *= per_cell(rng, 0.0, 1.0)[packing.cell] < 0.6
    return np.asarray(out + 0.2 * body, np.float32)


class Camera:
    """Photographs a slide, window by window; windows may come in any order."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._spacing_um = slide.spec.slide.spacing_um
        self._size_px = slide.spec.size_px
        look = slide.look
        # Light is blurred and sharpened; noise comes last, after what lies above.
        self._still = replace(look, noise=0.0, jpeg_quality=0)
        self._plain = replace(look, jpeg_quality=0)
        self._grain = replace(self._plain, white_rgb=_GRAY)
        reach_um = 4.0 * (2.0 * look.blur_um + look.chroma_blur_um)
        self._margin_px = int(np.ceil(reach_um / self._spacing_um)) + 8
        far_um = slide.artifacts.reach_um
        self._far_margin_px = self._margin_px + int(np.ceil(far_um / self._spacing_um))

    def rows(self, y_px: int, count: int) -> npt.NDArray[np.uint8]:
        """Level-0 rows [y_px, y_px + count), (count, W, 3)."""
        width = self._size_px[0]
        out = np.empty((count, width, 3), np.uint8)
        for x_px in range(0, width, WINDOW_PX):
            end = min(x_px + WINDOW_PX, width)
            out[:, x_px:end] = self.window(x_px, y_px, end - x_px, count)
        return out

    def window(
        self, x_px: int, y_px: int, width_px: int, height_px: int
    ) -> npt.NDArray[np.uint8]:
        """(h, w, 3) of one window."""
        slide, margin = self._slide, self._far_margin_px
        rng = generator(seed_of(slide.seed, "noise", x_px, y_px))
        wide = Window.over(
            x_px - margin,
            y_px - margin,
            width_px + 2 * margin,
            height_px + 2 * margin,
            self._spacing_um,
        )
        if not touches(slide.artifacts, wide):
            return self._untouched(x_px, y_px, width_px, height_px, rng)
        left, top = x_px - margin, y_px - margin
        shape = (height_px + 2 * margin, width_px + 2 * margin)
        amounts = self._amounts(left, top, shape)
        if amounts is None:
            picture = np.empty((*shape, 3), np.float32)
            picture[:] = np.rint(slide.look.white_rgb)
        else:
            picture = expose(
                double(amounts, slide.artifacts, wide, self._spacing_um),
                self._still,
                generator(0),
                spacing_um=self._spacing_um,
                oversampling=1,
            ).astype(np.float32)
        shade(picture, slide.artifacts, wide)
        picture = defocus(picture, slide.artifacts, wide, self._spacing_um)
        inner = picture[margin:-margin, margin:-margin]
        grain = expose(
            np.zeros((1, height_px, width_px), np.float32),
            self._grain,
            rng,
            spacing_um=self._spacing_um,
            oversampling=1,
        )
        noisy = np.clip(np.rint(inner + grain - np.float32(_GRAY[0])), 0, 255)
        return np.asarray(noisy, np.uint8)

    def _untouched(
        self,
        x_px: int,
        y_px: int,
        width_px: int,
        height_px: int,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.uint8]:
        """A window without artifacts: noise and all in one exposure."""
        margin = self._margin_px
        shape = (height_px + 2 * margin, width_px + 2 * margin)
        amounts = self._amounts(x_px - margin, y_px - margin, shape)
        if amounts is None:
            margin = 0
            amounts = np.zeros((1, height_px, width_px), np.float32)
        picture = expose(
            amounts, self._plain, rng, spacing_um=self._spacing_um, oversampling=1
        )
        return picture[margin : margin + height_px, margin : margin + width_px]

    def _amounts(self, left: int, top: int, shape: tuple[int, int]) -> Floats | None:
        """Stains of a window; None where it is all glass."""
        canvas: Floats | None = None
        for patch in self._slide.patches:
            lobule = patch.lobule
            x0, x1 = max(left, lobule.x_px), left + shape[1]
            y0, y1 = max(top, lobule.y_px), top + shape[0]
            x1 = min(x1, lobule.x_px + lobule.width_px)
            y1 = min(y1, lobule.y_px + lobule.height_px)
            if x0 >= x1 or y0 >= y1:
                continue
            if canvas is None:
                canvas = np.zeros((patch.amounts.shape[0], *shape), np.float32)
            here = (
                slice(y0 - lobule.y_px, y1 - lobule.y_px),
                slice(x0 - lobule.x_px, x1 - lobule.x_px),
            )
            there = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            np.copyto(
                canvas[(slice(None), *there)],
                patch.amounts[(slice(None), *here)],
                where=patch.own[here],
            )
        return canvas
