# SPDX-License-Identifier: Apache-2.0
"""The native core: translation only. Each part's documentation stands in its C++ header."""

import numpy as np
import numpy.typing as npt

__version__: str

# --- errors -------------------------------------------------------------------------------
REASON_CODES: list[tuple[str, str]]

# --- kernels ------------------------------------------------------------------------------

# --- guideline ----------------------------------------------------------------------------

# --- io -----------------------------------------------------------------------------------

# --- session ------------------------------------------------------------------------------
