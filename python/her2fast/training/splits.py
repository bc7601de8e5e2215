# SPDX-License-Identifier: Apache-2.0
"""Who is trained on, who is tested: folds that keep patients whole, in a file.

Folds are grouped by patient and stratified by label, or leave one site out each. Needs
scikit-learn to make them, nothing to read them.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from her2fast.errors import UsageError
from her2fast.export.atomic import atomic_write

PARTS = ("train", "val", "test")
SPEC_VERSION = "1.0"
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Assignment:
    """Slide -> part of one fold."""

    parts: dict[str, str]

    @property
    def sha256(self) -> str:
        """Of the sorted list of pairs: the same division, the same hash."""
        text = json.dumps(sorted(self.parts.items()), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Member:
    """What a slide is divided by."""

    id: str
    group: str
    label: str
    site: str


def k_folds(
    members: Sequence[Member], folds: int, *, seed: int, test: bool = True
) -> list[dict[str, list[str]]]:
    """`folds` divisions; fold i tests on the i-th share of patients.

    With `test` the next share validates and the rest trains, else the i-th validates.
    """
    least = 3 if test else 2
    if folds < least:
        raise UsageError(f"need at least {least} folds, got {folds}")
    shares = _shares(members, folds, seed)
    found = []
    for index in range(folds):
        held = {index: "test" if test else "val"}
        if test:
            held[(index + 1) % folds] = "val"
        found.append(_parts(members, [held.get(share, "train") for share in shares]))
    return found


def site_folds(
    members: Sequence[Member], *, seed: int, val_share: float = 0.2
) -> list[dict[str, list[str]]]:
    """One division per site, which is the test; `val_share` of the other patients
    validate.
    """
    sites = sorted({member.site for member in members})
    if len(sites) < 2 or "" in sites:
        raise UsageError(
            "need a site of every slide and at least two sites to leave one out, got "
            f"{sites}"
        )
    if not 0.0 < val_share <= 0.5:
        raise UsageError(f"need 0 < val_share <= 0.5, got {val_share}")
    home: dict[str, str] = {}
    for member in members:
        if home.setdefault(member.group, member.site) != member.site:
            raise UsageError(
                f"patient {member.group!r} has slides of the sites "
                f"{home[member.group]!r} and {member.site!r}: no site can be left out"
            )
    found = []
    for site in sites:
        rest = [member for member in members if member.site != site]
        shares = iter(_shares(rest, round(1 / val_share), seed))
        parts = [
            "test" if member.site == site else ("train", "val")[next(shares) == 0]
            for member in members
        ]
        found.append({"site": site, **_parts(members, parts)})
    return found


def _shares(members: Sequence[Member], folds: int, seed: int) -> list[int]:
    """The share, 0 to folds - 1, of every member; groups stay whole."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ModuleNotFoundError as error:
        raise UsageError(
            "making splits needs scikit-learn: pip install her2fast[train]"
        ) from error
    groups = {member.group for member in members}
    if len(groups) < folds:
        raise UsageError(f"need at least {folds} patients, got {len(groups)}")
    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % (1 << 32))
    shares = [0] * len(members)
    with warnings.catch_warnings():
        # A rare label cannot be in every fold; the counts in the file show it.
        warnings.filterwarnings("ignore", message="The least populated class")
        try:
            for share, (_, held) in enumerate(
                cutter.split(
                    [[0.0]] * len(members),
                    [member.label for member in members],
                    [member.group for member in members],
                )
            ):
                for index in held.tolist():
                    shares[index] = share
        except ValueError as error:
            raise UsageError(f"{folds} folds cannot be made: {error}") from error
    return shares


def _parts(members: Sequence[Member], parts: Sequence[str]) -> dict[str, Any]:
    return {
        name: sorted(m.id for m, p in zip(members, parts, strict=True) if p == name)
        for name in PARTS
    }


def write_splits(path: Path, kind: str, seed: int, folds: list[dict[str, Any]]) -> str:
    """Write the file; returns its SHA-256."""
    content = {
        "spec_version": SPEC_VERSION,
        "kind": kind,
        "seed": seed,
        "folds": folds,
    }
    data = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    atomic_write(path, data)
    return hashlib.sha256(data).hexdigest()


def read_splits(path: Path) -> list[dict[str, Any]]:
    """The folds of a file; raises `UsageError` with the place."""
    try:
        data = path.read_bytes()
        content = json.loads(data) if len(data) <= MAX_BYTES else None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("folds"), list):
        raise UsageError(f"{path}: need an object with a list of folds")
    if content.get("spec_version") != SPEC_VERSION:
        raise UsageError(
            f"{path}: need spec_version {SPEC_VERSION!r}, got "
            f"{content.get('spec_version')!r}"
        )
    folds: list[dict[str, Any]] = content["folds"]
    for index, fold in enumerate(folds):
        for part in PARTS:
            names = fold.get(part) if isinstance(fold, dict) else None
            if not isinstance(names, list) or any(type(n) is not str for n in names):
                raise UsageError(
                    f"{path}: fold {index}: need {part!r} as a list of slides"
                )
    return folds


def assignment_of(folds: Sequence[dict[str, Any]], fold: int, path: Path) -> Assignment:
    """One fold as slide -> part; a slide in two parts is an error."""
    if not 0 <= fold < len(folds):
        raise UsageError(
            f"{path}: has the folds 0 to {len(folds) - 1}, got fold={fold}"
        )
    parts: dict[str, str] = {}
    for part in PARTS:
        for name in folds[fold][part]:
            if parts.setdefault(name, part) != part:
                raise UsageError(
                    f"{path}: fold {fold}: {name} is in {parts[name]!r} and {part!r}"
                )
    return Assignment(parts)
