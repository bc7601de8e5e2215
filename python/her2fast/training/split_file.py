# SPDX-License-Identifier: Apache-2.0
"""Makes a file of splits from a manifest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from her2fast.errors import UsageError
from her2fast.manifest import LABELS, read_manifest
from her2fast.training.cohort import majority, reader_shares, slide_id
from her2fast.training.splits import PARTS, Member, k_folds, site_folds, write_splits


def make_split_file(
    manifest: Path, out: Path, *, folds: int, by_site: bool, test: bool, seed: int
) -> list[str]:
    """Write the file; returns lines that say what it holds."""
    if by_site and not test:
        raise UsageError("need --by-site or --no-test: a site left out is the test")
    folder = manifest.resolve().parent
    members = []
    for entry in read_manifest(manifest):
        name = slide_id(entry, folder)
        label = entry.label
        shares = reader_shares(entry)
        if label is None and shares is not None:
            most = majority(shares)
            label = None if most is None else LABELS[most]
        members.append(
            Member(
                id=name,
                # a slide without patient is a patient of its own
                group=f"p:{entry.patient}" if entry.patient else f"s:{name}",
                label=label or "",
                site=entry.site or entry.scanner or "",
            )
        )
    made: list[dict[str, Any]]
    if by_site:
        made = site_folds(members, seed=seed)
    else:
        made = [dict(fold) for fold in k_folds(members, folds, seed=seed, test=test)]
    digest = write_splits(out, "site-held-out" if by_site else "k-fold", seed, made)
    label_of = {member.id: member.label or "none" for member in members}
    lines = [f"{out}: {len(made)} folds, sha256 {digest}"]
    for number, fold in enumerate(made):
        parts = []
        for part in PARTS:
            counts = Counter(label_of[name] for name in fold[part])
            shown = " ".join(f"{k}:{counts[k]}" for k in sorted(counts))
            parts.append(f"{part} {len(fold[part])} ({shown})")
        site = f" without {fold['site']}" if "site" in fold else ""
        lines.append(f"fold {number}{site}: {', '.join(parts)}")
    return lines
