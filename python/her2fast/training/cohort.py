# SPDX-License-Identifier: Apache-2.0
"""The slides of a training: labels, groups and parts, checked before a pixel is read.

Imports no torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from her2fast.errors import UsageError
from her2fast.manifest import LABELS, Entry, read_manifest
from her2fast.training.splits import PARTS, Assignment, assignment_of, read_splits

#: Slides named in one complaint.
SHOWN = 5


@dataclass(frozen=True)
class TrainingSlide:
    """One slide of a cohort."""

    id: str  # path relative to the manifest's folder, with forward slashes
    entry: Entry
    label: int | None
    shares: tuple[float, ...] | None  # of 0, 1+, 2+, 3+ among its readers, or one-hot
    part: str  # train, val or test

    def group(self, name: str) -> str:
        """What `balance` draws by: site, scanner or label."""
        if name == "label":
            return "" if self.label is None else LABELS[self.label]
        value = self.entry.site if name == "site" else self.entry.scanner
        # A manifest of one site often states scanners alone, and the other way round.
        other = self.entry.scanner if name == "site" else self.entry.site
        return value or other or ""


@dataclass(frozen=True)
class Cohort:
    """Checked slides, and what divided them."""

    slides: tuple[TrainingSlide, ...]
    manifest_sha256: str
    split_sha256: str
    notes: tuple[str, ...]

    def part(self, name: str) -> tuple[TrainingSlide, ...]:
        """The slides of one part, in the manifest's order."""
        return tuple(slide for slide in self.slides if slide.part == name)


def load_cohort(
    manifest: Path,
    *,
    splits: Path | None = None,
    fold: int = 0,
    labels: str = "label",
    need_labels: bool = True,
) -> Cohort:
    """Read and check a manifest for training.

    Parameters
    ----------
    manifest : path
        The one manifest (docs/guide/manifest.md).
    splits : path, optional
        File of `her2fast train splits`; without it the column `split`.
    fold : int
        Which fold of `splits`.
    labels : {"label", "majority", "soft"}
        The column `label`; what most of reader_1 ... say, and where they are divided
        the column; or the readers' shares, and the majority as the one label.
    need_labels : bool
        Whether a slide of train or val without label is an error.

    Raises
    ------
    UsageError
        A patient in two parts, missing labels, unknown slides, empty parts.
    """
    import hashlib

    entries = read_manifest(manifest)
    folder = manifest.resolve().parent
    ids = [slide_id(entry, folder) for entry in entries]
    if splits is not None:
        assignment = assignment_of(read_splits(splits), fold, splits)
        _check_known(assignment, ids, splits, manifest)
    else:
        assignment = _from_column(entries, ids, manifest)
    slides = tuple(
        _slide(entry, name, labels, assignment.parts[name])
        for entry, name in zip(entries, ids, strict=True)
    )
    check_leakage(slides, manifest)
    if need_labels:
        _check_labels(slides, labels, manifest)
    for part in ("train", "val"):
        if not any(slide.part == part for slide in slides):
            raise UsageError(f"{manifest}: no slide is in part {part!r}")
    notes = []
    lonely = sum(slide.entry.patient is None for slide in slides)
    if lonely:
        notes.append(
            f"{lonely} of {len(slides)} slides state no patient: each counts as a "
            "patient of its own, and slides of one patient may be in two parts"
        )
    digest = hashlib.sha256(Path(manifest).read_bytes()).hexdigest()
    return Cohort(slides, digest, assignment.sha256, tuple(notes))


def slide_id(entry: Entry, folder: Path) -> str:
    """The name of a slide in split files: relative to the manifest's folder."""
    return os.path.relpath(entry.slide, folder).replace(os.sep, "/")


def reader_shares(entry: Entry) -> tuple[float, ...] | None:
    """Shares of 0, 1+, 2+, 3+ among the readers; None where no reader scored it."""
    if not entry.readers:
        return None
    counts = Counter(entry.readers.values())
    return tuple(counts[name] / len(entry.readers) for name in LABELS)


def majority(shares: Sequence[float]) -> int | None:
    """The class with most votes; None where two have as many."""
    best = max(shares)
    return shares.index(best) if list(shares).count(best) == 1 else None


def check_leakage(slides: Iterable[TrainingSlide], place: Path) -> None:
    """Raises `UsageError` where a patient has slides in two parts."""
    parts: dict[str, dict[str, str]] = {}
    for slide in slides:
        if slide.entry.patient is not None:
            parts.setdefault(slide.entry.patient, {}).setdefault(slide.part, slide.id)
    leaks = [
        f"{patient!r} ({', '.join(f'{p}: {s}' for p, s in sorted(found.items()))})"
        for patient, found in sorted(parts.items())
        if len(found) > 1
    ]
    if leaks:
        raise UsageError(
            f"{place}: {len(leaks)} patients have slides in two parts, so that a test "
            f"would know its patients: {_some(leaks)}"
        )


def check_duplicates(fingerprints: Mapping[str, str]) -> None:
    """Raises `UsageError` where two slides (id -> fingerprint) are one file."""
    owners: dict[str, list[str]] = {}
    for name, fingerprint in fingerprints.items():
        owners.setdefault(fingerprint, []).append(name)
    twins = [" = ".join(names) for names in owners.values() if len(names) > 1]
    if twins:
        raise UsageError(f"the same slide stands twice in the cohort: {_some(twins)}")


def _slide(entry: Entry, name: str, labels: str, part: str) -> TrainingSlide:
    stated = None if entry.label is None else LABELS.index(entry.label)
    voted = reader_shares(entry)
    label = stated
    if labels != "label" and voted is not None:
        label = majority(voted)
        label = stated if label is None else label
    shares = voted if labels == "soft" else None
    if shares is None and label is not None:
        shares = tuple(float(kind == label) for kind in range(len(LABELS)))
    return TrainingSlide(name, entry, label, shares, part)


def _from_column(
    entries: Sequence[Entry], ids: Sequence[str], manifest: Path
) -> Assignment:
    parts: dict[str, str] = {}
    for entry, name in zip(entries, ids, strict=True):
        if entry.split not in PARTS:
            raise UsageError(
                f"{manifest}: slide {name}: column 'split': need "
                f"{' | '.join(PARTS)}, got {entry.split or ''!r}; or make a file with "
                "`her2fast train splits` and name it as [data] splits"
            )
        parts[name] = entry.split
    return Assignment(parts)


def _check_known(
    assignment: Assignment, ids: Sequence[str], splits: Path, manifest: Path
) -> None:
    strangers = sorted(set(assignment.parts) - set(ids))
    if strangers:
        raise UsageError(f"{splits}: slides not in {manifest}: {_some(strangers)}")
    left_out = [name for name in ids if name not in assignment.parts]
    if left_out:
        raise UsageError(
            f"{splits}: slides of {manifest} in no part: {_some(left_out)}; make the "
            "file anew with `her2fast train splits`"
        )


def _check_labels(slides: Iterable[TrainingSlide], labels: str, place: Path) -> None:
    missing = [
        slide.id
        for slide in slides
        if slide.part != "test"
        and (slide.shares is None if labels == "soft" else slide.label is None)
    ]
    if missing:
        source = "column 'label'" if labels == "label" else "readers with a majority"
        raise UsageError(
            f"{place}: {len(missing)} slides for training have no label ({source}): "
            f"{_some(missing)}"
        )


def _some(names: Sequence[str]) -> str:
    shown = "; ".join(names[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
