# SPDX-License-Identifier: Apache-2.0
"""Kernels: thin wrappers over the native core, one function per operation.

All release the GIL and may be called from any thread. Arrays are NumPy's, torch's,
CuPy's or another library's, read where they lie, and what comes out is of the kind of
the first (docs/guide/arrays.md). A device is a promise: what cannot run there raises.
"""

from her2fast.kernels.image import (
    FOCUS_LIMIT,
    H_DAB,
    TISSUE_REACH_PX,
    StainCensus,
    focus,
    is_wrong_stain,
    normalize_batch,
    stain_census,
    stain_unmix,
    tissue_mask,
    tumor_count,
)
from her2fast.kernels.training import (
    ConstraintSelection,
    FractionLimits,
    LogitCalibration,
    PatchAction,
    calibration_loss,
    constraint_select,
    logit_calibrate,
)

__all__ = [
    "FOCUS_LIMIT",
    "H_DAB",
    "TISSUE_REACH_PX",
    "ConstraintSelection",
    "FractionLimits",
    "LogitCalibration",
    "PatchAction",
    "StainCensus",
    "calibration_loss",
    "constraint_select",
    "focus",
    "is_wrong_stain",
    "logit_calibrate",
    "normalize_batch",
    "stain_census",
    "stain_unmix",
    "tissue_mask",
    "tumor_count",
]
