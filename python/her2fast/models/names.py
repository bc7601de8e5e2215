# SPDX-License-Identifier: Apache-2.0
"""Names of the packages that are used where none is given; imports nothing."""

from __future__ import annotations

#: Of `her2fast score`, and what finds the tumor for `her2fast membranes`.
DEFAULT_MODEL = "constrained-tiny"
#: Of `her2fast membranes`.
DEFAULT_MEMBRANE_MODEL = "membrane-tiny"
