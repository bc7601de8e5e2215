# SPDX-License-Identifier: Apache-2.0
"""What a report says in words of codes, flags and views."""

from __future__ import annotations

__all__ = [
    "CODES",
    "FLAGS",
    "HER2_VIEWS",
    "SPACING_SOURCES",
    "STATUSES",
    "THREE_WAY",
    "TILES",
]

STATUSES = {
    "scored": "Scored",
    "indeterminate": "The slide cannot be evaluated",
    "failed": "The run failed on this slide",
    "refused": "The slide was refused",
}

THREE_WAY = {
    "negative": "HER2 negative",
    "equivocal": "HER2 equivocal",
    "positive": "HER2 positive",
}

HER2_VIEWS = {"zero": "HER2 0", "low": "HER2-low", "high": "HER2-high"}

FLAGS = {
    "ULTRALOW": (
        "Some faint staining",
        "Classes 1+ and 2+ together are present, in 10 % of the tumor or less. "
        "Ultralow is defined by membranes, which areas cannot show.",
    ),
    "GUIDELINE_GAP": (
        "Guideline gap",
        "Class 2+ is present but short of its cut; the 2018 definitions leave this "
        "pattern out and their note calls such patterns equivocal. Alternative: 2+.",
    ),
    "BORDERLINE": (
        "Borderline",
        "The tumor lies within one percentage point of a cut, or the score would often "
        "be another with other tumor of this slide; see below.",
    ),
    "HETEROGENEOUS": (
        "Heterogeneous",
        "A small share of the tumor is two or more classes above what the rest "
        "would score (Pham et al., section 6.1).",
    ),
    "UNUSUAL_PATTERN": (
        "Unusual pattern",
        "Moderate to intense but incomplete membranes in more than 10 % of the cells.",
    ),
    "NO_GLASS": (
        "No empty glass seen",
        "What is perceptibly stained is judged against the slide's empty glass, and "
        "none was seen: there may be too many faint membranes, and the score too high.",
    ),
    "CONTROL_SUSPECTED": (
        "Control tissue suspected",
        "Tissue islands differ widely in class. If one is an on-slide control, draw it "
        "and name it Control, then rescore.",
    ),
    "OUT_OF_FOCUS": (
        "Out of focus",
        "Much of the tissue is blurred; scan again or look at the slide.",
    ),
    "OUT_OF_DOMAIN": (
        "Unlike the training data",
        "In color or texture much of the tumor is unlike anything the package was "
        "trained on, so its classes are not to be trusted here; look at the slide.",
    ),
}

CODES = {
    "NO_SPACING": "The file does not say how large a pixel is; give --mpp.",
    "BAD_SPACING": "The pixel size in the file is not plausible; give --mpp.",
    "NO_LEVEL": "The slide is too coarse for this method.",
    "ROI_INVALID": "The drawn region cannot be used.",
    "ROI_OUTSIDE": "The drawn region lies outside the slide.",
    "NO_TISSUE": "No tissue was found.",
    "NO_TUMOR": "No tumor was found: not evaluable, which is not 0.",
    "TOO_LITTLE_TUMOR": "Too little tumor to score: not evaluable, which is not 0.",
    "WRONG_STAIN": "The slide does not look like the stain this method reads.",
    "MISSING_TILES": "Too many tiles of the image are missing.",
    "CORRUPT_TILES": "Too many tiles of the image are damaged.",
    "TRUNCATED": "The file is cut off.",
    "NON_FINITE": "The model gave values that are no numbers.",
    "CANCELLED": "The run was cancelled.",
    "DISK_FULL": "The disk is full.",
}

SPACING_SOURCES = {
    "user": "stated by the user (--mpp)",
    "vendor": "the scanner's metadata",
    "tiff-resolution": "the resolution in the TIFF header",
}

TILES = (
    ("total", "in the region"),
    ("read", "read"),
    ("missing", "missing"),
    ("corrupt", "damaged"),
    ("warned", "decoded with a warning"),
)
