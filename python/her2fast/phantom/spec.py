# SPDX-License-Identifier: Apache-2.0
"""What a phantom slide is made of: a TOML file, checked (docs/guide/phantoms.md).

Lengths are micrometers with the slide's top left corner as origin, x right, y down.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from her2fast.errors import UsageError
from her2fast.phantom.stroma import StromaMix

__all__ = ["SPEC_CODES", "SlideSpec", "SpecError", "default_toml", "load_spec"]

#: Stable codes of a specification that is refused; all end in exit code 64.
SPEC_CODES = (
    "SPEC_NOT_FOUND",
    "SPEC_SYNTAX",
    "SPEC_UNKNOWN_KEY",
    "SPEC_TYPE",
    "SPEC_RANGE",
)
MAX_BYTES = 1 << 20
#: A slide's maps stand in memory, and a scene's truth at its fine grid.
MAX_PIXELS = 400_000_000

Score = Literal["cycle", "0", "1+", "2+", "3+"]
Class = Literal["0", "1+", "2+", "3+"]
Outline = Literal["resection", "biopsy", "cores"]
Ink = Literal["blue", "green", "black", "red"]
Box = tuple[float, float, float, float]


class SpecError(UsageError):
    """A specification is wrong; `code` says how, the message where and what else."""

    def __init__(self, message: str, code: str) -> None:
        if code not in SPEC_CODES:
            raise ValueError(f"need a code of {SPEC_CODES}, got {code!r}")
        super().__init__(f"{code}: {message}")
        self.code = code


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


def _um(low: float, high: float, default: float, what: str) -> Any:
    return Field(default=default, ge=low, le=high, description=what)


def _chance(name: str, what: str) -> Any:
    # One definition of the usual probabilities: the generator's own.
    return Field(default=getattr(StromaMix, name), ge=0.0, le=1.0, description=what)


class Frame(_Table):
    """The slide's frame and its file."""

    width_um: float = _um(500, 40_000, 3200, "width of the slide, um")
    height_um: float = _um(500, 40_000, 2400, "height of the slide, um")
    spacing_um: float = _um(0.2, 2.0, 1.0, "um per px of level 0; 1.0 or 0.25 is usual")
    jpeg_quality: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="of the slide's tiles, 0 is lossless; left out: the scanner's",
    )
    format: Literal["svs"] = Field(default="svs", description="Aperio layout")


class Tumor(_Table):
    """Which classes, and how they lie."""

    score: Score = Field(
        default="cycle",
        description="wanted score by pham-2022; cycle: slide i is of class i mod 4",
    )
    mixture: tuple[float, float, float, float] | None = Field(
        default=None,
        description="shares of 0, 1+, 2+, 3+; else drawn for the score",
    )
    clustered: bool = Field(
        default=False, description="the highest classes lie together in a few lobules"
    )
    free_share: float = _um(
        0.0, 0.9, 0.15, "share of the lobules that hold no tumor, in [0, 0.9]"
    )

    @field_validator("mixture")
    @classmethod
    def _adds_up(
        cls, value: tuple[float, float, float, float] | None
    ) -> tuple[float, float, float, float] | None:
        if value is not None and (min(value) < 0.0 or abs(sum(value) - 1.0) > 1e-6):
            raise ValueError("need four shares >= 0 that add to 1")
        return value


class Tissue(_Table):
    """The patient's tissue."""

    outline: Outline = Field(default="resection", description="shape of the pieces")
    pieces: int = Field(
        default=1, ge=1, le=24, description="as many; fewer cores where no more fit"
    )
    core_um: float = _um(200, 4000, 1000, "diameter of a core, width of a biopsy, um")
    lobule_um: float = _um(
        300, 1200, 800, "about the size of what is drawn in one go, um"
    )


class Control(_Table):
    """Control tissue on the slide, right of the patient's; never in the truth."""

    classes: tuple[Class, ...] = Field(
        default=(),
        max_length=8,
        description="one core of each, from above; empty: none",
    )
    diameter_um: float = _um(200, 3000, 600, "of a control core, um")
    distance_um: float = _um(
        100, 5000, 600, "glass between the patient's tissue and the strip, um"
    )
    separator: bool = Field(default=True, description="a black line between")


class Pen(_Table):
    """A stroke of a felt-tip pen on the cover slip."""

    ink: Ink = Field(default="blue", description="color of the ink")
    over: Literal["glass", "tissue"] = Field(
        default="glass", description="along the slide's edge, or across the tissue"
    )
    width_um: float = _um(20, 2000, 200, "of the stroke, um")


class Blur(_Table):
    """Out of focus."""

    sigma_um: float = _um(0.1, 20, 3, "of a Gaussian, um")
    region_um: Box | None = Field(
        default=None, description="left, top, right, bottom; left out: the whole slide"
    )

    @field_validator("region_um")
    @classmethod
    def _is_box(cls, value: Box | None) -> Box | None:
        if value is not None and not (value[0] < value[2] and value[1] < value[3]):
            raise ValueError("need left < right and top < bottom")
        return value


class Artifacts(_Table):
    """What goes wrong between knife and scanner."""

    folds: int = Field(default=0, ge=0, le=20, description="tissue lies doubled")
    fold_width_um: float = _um(10, 300, 60, "um")
    blood: int = Field(
        default=0, ge=0, le=20, description="pools of red cells in place of tissue"
    )
    bubbles: int = Field(default=0, ge=0, le=20, description="air under the cover slip")
    dust: int = Field(default=0, ge=0, le=2000, description="dark specks, anywhere")
    pen: tuple[Pen, ...] = Field(default=(), max_length=12, description="strokes")
    blur: tuple[Blur, ...] = Field(
        default=(), max_length=12, description="out of focus"
    )


class Scanner(_Table):
    """Laboratory and scanner."""

    profile: str = Field(
        default="cycle",
        description="of her2fast.phantom.PROFILES, unseen; cycle: one a slide",
    )
    jitter: bool = Field(
        default=True, description="stain and scanner as from day to day"
    )

    @field_validator("profile")
    @classmethod
    def _is_known(cls, value: str) -> str:
        from her2fast.phantom.optics import PROFILES, UNSEEN

        known = ["cycle", *(profile.name for profile in (*PROFILES, UNSEEN))]
        if value not in known:
            raise ValueError(f"need one of {', '.join(known)}")
        return value


class Background(_Table):
    """Probability that a lobule holds some of each thing that is no tumor."""

    fat: float = _chance("fat", "adipose tissue")
    muscle: float = _chance("muscle", "smooth or skeletal muscle")
    diffuse_inflammation: float = _chance("diffuse_inflammation", "single round cells")
    lymphocytes: float = _chance("lymphocytes", "crowds of lymphocytes")
    follicles: float = _chance("follicles", "round, many with a paler center")
    plasma_cells: float = _chance("plasma_cells", "fields of plasma cells")
    histiocytes: float = _chance("histiocytes", "large pale cells")
    vessels: float = _chance("vessels", "arterioles, venules, capillaries")
    benign_ducts: float = _chance("benign_ducts", "ducts or glands that are no tumor")
    benign_lobules: float = _chance("benign_lobules", "acini in groups")
    benign_stained: float = _chance("benign_stained", "the above carry stain")
    red_cells: float = _chance("red_cells", "outside vessels")
    hemosiderin: float = _chance("hemosiderin", "golden-brown granules")
    anthracosis: float = _chance("anthracosis", "black granules")
    formalin_pigment: float = _chance("formalin_pigment", "brown-black dust")
    brown_macrophages: float = _chance("brown_macrophages", "brown stromal cells")
    necrosis: float = _chance("necrosis", "in the stroma")
    tumor_necrosis: float = _chance("tumor_necrosis", "in the middle of tumor")
    lumen_debris: float = _chance("lumen_debris", "debris or red cells in lumens")
    mucin: float = _chance("mucin", "pale pools")
    calcification: float = _chance("calcification", "dark blue bodies")
    edge_artifact: float = _chance("edge_artifact", "DAB that darkens toward glass")
    nuclear_dab: float = _chance("nuclear_dab", "brown nuclei")
    tumor_nuclear_dab: float = _chance("tumor_nuclear_dab", "brown nuclei of tumor")
    brown_stroma: float = _chance("brown_stroma", "fibers and muscle bind DAB")
    dab_dots: float = _chance("dab_dots", "brown precipitate")
    veil: float = _chance("veil", "brown haze")
    refraction: float = _chance("refraction", "thin grey lines")

    @property
    def mix(self) -> StromaMix:
        """As the scenes take it."""
        return StromaMix(**self.model_dump())


class SlideSpec(_Table):
    """All of it; every key has a default."""

    slide: Frame = Frame()
    tumor: Tumor = Tumor()
    tissue: Tissue = Tissue()
    background: Background = Background()
    control: Control = Control()
    artifacts: Artifacts = Artifacts()
    scanner: Scanner = Scanner()

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of level 0."""
        spacing = self.slide.spacing_um
        return round(self.slide.width_um / spacing), round(
            self.slide.height_um / spacing
        )

    @property
    def strip_um(self) -> float:
        """What control tissue, its margins and the distance take of the width."""
        if not self.control.classes:
            return 0.0
        return self.control.diameter_um * 1.15 + self.control.distance_um

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width, height = self.size_px
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"slide: need at most {MAX_PIXELS} px, got {width} x {height}; lower "
                "width_um or height_um, or raise spacing_um"
            )
        if self.slide.width_um - self.strip_um < 400.0:
            raise ValueError(
                f"control: need 400 um of width_um left for the patient's tissue, got "
                f"{self.slide.width_um - self.strip_um:g}"
            )
        need_um = len(self.control.classes) * self.control.diameter_um * 1.15
        if need_um > 0.95 * self.slide.height_um:
            raise ValueError(
                f"control: need height_um of at least {need_um / 0.95:.0f} for these "
                f"cores, got {self.slide.height_um:g}"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """As `truth.json` holds it."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return values


def load_spec(path: str | os.PathLike[str]) -> SlideSpec:
    """Reads a TOML file; raises `SpecError`."""
    name = os.path.basename(os.fspath(path))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"{os.fspath(path)}: {error.strerror or error}"
        raise SpecError(text, "SPEC_NOT_FOUND") from error
    if len(data) > MAX_BYTES:
        raise SpecError(f"{name}: need at most {MAX_BYTES} bytes", "SPEC_SYNTAX")
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"{name}: is no TOML: {error}", "SPEC_SYNTAX") from error
    return check_spec(values, name)


def check_spec(values: dict[str, Any], name: str) -> SlideSpec:
    """The specification of parsed TOML; raises `SpecError` with file and key."""
    try:
        # By way of JSON, where a list is a tuple and a number of any kind a number.
        text = json.dumps(values)
    except TypeError as error:
        raise SpecError(f"{name}: need no dates: {error}", "SPEC_TYPE") from error
    try:
        return SlideSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SpecError(f"{name}: {_place(first)}{_words(first)}", _code(first)) from (
            None
        )


def _place(error: ErrorDetails) -> str:
    parts = [str(part) for part in error["loc"]]
    return f"{'.'.join(parts)}: " if parts else ""


def _code(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return "SPEC_UNKNOWN_KEY"
    ranged = ("greater", "less", "value_error", "literal", "too_", "finite")
    return "SPEC_RANGE" if any(word in kind for word in ranged) else "SPEC_TYPE"


def _words(error: ErrorDetails) -> str:
    given = repr(error["input"])
    got = given if len(given) <= 80 else f"{given[:77]}..."
    if error["type"] == "extra_forbidden":
        table = _table_at(error["loc"][:-1])
        known = f"; known are {', '.join(table.model_fields)}" if table else ""
        return f"is no key{known}"
    if error["type"] == "value_error":
        text = error["msg"].removeprefix("Value error, ")
        return text if not error["loc"] else f"{text}, got {got}"
    if error["type"] == "missing":
        return "is missing"
    bounds = _range_at(error["loc"])
    need = bounds or error["msg"].removeprefix("Input should be ").lower()
    return f"need {need}, got {got}"


def _table_at(place: tuple[int | str, ...]) -> type[_Table] | None:
    table: type[_Table] = SlideSpec
    for part in place:
        if isinstance(part, int):
            continue
        field = table.model_fields.get(part)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        found = [k for k in kinds if isinstance(k, type) and issubclass(k, _Table)]
        if not found:
            return None
        table = found[0]
    return table


def _range_at(place: tuple[int | str, ...]) -> str:
    names = [part for part in place if isinstance(part, str)]
    table = _table_at(place[: place.index(names[-1])]) if names else None
    field = table.model_fields.get(names[-1]) if table else None
    return _range_text(field.metadata) if field and names[-1] == place[-1] else ""


def _range_text(metadata: list[Any]) -> str:
    low = next((item.ge for item in metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in metadata if hasattr(item, "le")), None)
    return "" if low is None else f"{low:g} to {high:g}"


def default_toml() -> str:
    """A file that says what is the default, with the range of every key."""
    return "\n".join(_toml_lines()) + "\n"


def _toml_lines() -> Iterator[str]:
    yield "# A phantom slide for `her2fast phantom --spec`. All lengths in micrometers."
    yield "# Every key may be left out; these are the defaults."
    for name, field in SlideSpec.model_fields.items():
        assert isinstance(field.annotation, type)
        yield f"\n[{name}]"
        yield from _table_lines(field.annotation, name)


def _table_lines(table: type[_Table], name: str) -> Iterator[str]:
    many: list[tuple[str, type[_Table]]] = []
    for key, field in table.model_fields.items():
        element = next(iter(get_args(field.annotation)), None)
        if isinstance(element, type) and issubclass(element, _Table):
            many.append((key, element))
            continue
        bounds = _range_text(field.metadata)
        options = get_args(field.annotation)
        if options and all(isinstance(option, str) for option in options):
            bounds = ", ".join(options)
        note = f"{field.description}{f' ({bounds})' if bounds else ''}"
        value = field.default
        shown = f"# {key} =" if value is None else f"{key} = {_toml_value(value)}"
        yield f"{shown}  # {note}"
    for key, element in many:
        yield f"\n# [[{name}.{key}]]  # any number of them"
        for line in _table_lines(element, f"{name}.{key}"):
            yield f"# {line.removeprefix('# ')}"


def _toml_value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return json.dumps(value)


def with_options(
    spec: SlideSpec | None,
    *,
    score: str | None = None,
    spacing_um: float | None = None,
    profile: str | None = None,
    file_format: str | None = None,
) -> SlideSpec:
    """A specification with what the command line says; raises `SpecError`."""
    values = (spec or check_spec({}, "defaults")).model_dump()
    given = {
        ("tumor", "score"): score,
        ("slide", "spacing_um"): spacing_um,
        ("slide", "format"): file_format,
        ("scanner", "profile"): profile,
    }
    for (table, key), value in given.items():
        if value is not None:
            values[table][key] = value
    if score is not None:
        values["tumor"]["mixture"] = None
    return check_spec(values, "the options")
