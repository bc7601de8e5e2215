# SPDX-License-Identifier: Apache-2.0
"""HER2 scoring of immunohistochemistry slides: fast, exact, explainable, embeddable."""

from __future__ import annotations

from her2fast._core import __version__

__all__ = ["__version__"]
