# SPDX-License-Identifier: Apache-2.0
"""Errors and the stable reason codes (docs/guide/reason-codes.md)."""

from __future__ import annotations

from her2fast import _core

#: Reason code -> terminal status, from the core's one table.
REASON_CODES: dict[str, str] = dict(_core.REASON_CODES)


class Her2fastError(Exception):
    """Base of every error this package raises on purpose."""


class SlideError(Her2fastError):
    """A slide cannot be scored; `code` says why, the message where and what next."""

    def __init__(self, message: str, code: str) -> None:
        if code not in REASON_CODES:
            raise ValueError(
                f"need a reason code of {sorted(REASON_CODES)}, got {code!r}"
            )
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> str:
        """The terminal status: "indeterminate", "failed" or "refused"."""
        return REASON_CODES[self.code]

    def __reduce__(self) -> tuple[type[SlideError], tuple[str, str]]:
        return type(self), (str(self), self.code)


class DeviceError(Her2fastError):
    """A device was named that this build or this machine lacks."""


class UsageError(Her2fastError):
    """The call or a file given to it is wrong (manifest, configuration, package)."""
