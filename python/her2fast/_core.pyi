# SPDX-License-Identifier: Apache-2.0
"""The native core: translation only. Each part's documentation stands in its C++ header."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str

# --- errors -------------------------------------------------------------------------------
REASON_CODES: list[tuple[str, str]]

# --- kernels ------------------------------------------------------------------------------

# --- guideline ----------------------------------------------------------------------------
def decide_guideline(
    areas: Sequence[int],
    rule_set: str = "asco-cap-2018",
    floor_percent: int = 1,
    patches: Sequence[int] | None = None,
    ish: str | None = None,
) -> dict[str, Any]: ...
def rule_sets() -> list[dict[str, str]]: ...

# --- io -----------------------------------------------------------------------------------

# --- session ------------------------------------------------------------------------------
