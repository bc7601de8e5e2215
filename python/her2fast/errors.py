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


#: Code -> what is wrong with an array given to a kernel, or with its device. They end
#: no slide: the call raises `ArrayError` or `DeviceError` (docs/guide/arrays.md).
ARRAY_CODES: dict[str, str] = {
    "ARRAY_KIND": "no array, or one of a kind that cannot be read where it lies",
    "ARRAY_DTYPE": "elements of another type; nothing is converted unasked",
    "ARRAY_LAYOUT": "an array on a GPU that is not C-contiguous",
    "ARRAY_DEVICE": "arrays on different devices, or not where `device` says",
    "ARRAY_GRAD": "a tensor that requires grad",
    "NO_DEVICE": "the device is not there, or the arrays lie on the host",
    "NO_TWIN": "the kernel has no CUDA twin and its arrays lie on a GPU",
}


def _known(code: str) -> str:
    if code not in ARRAY_CODES:
        raise ValueError(f"need a code of {sorted(ARRAY_CODES)}, got {code!r}")
    return code


class ArrayError(Her2fastError, TypeError):
    """An array that a kernel cannot take as it is; `code` says why (`ARRAY_CODES`)."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = _known(code)

    def __reduce__(self) -> tuple[type[ArrayError], tuple[str, str]]:
        return type(self), (str(self), self.code)


class DeviceError(Her2fastError):
    """A device was named that this build or this machine lacks; see `code`."""

    def __init__(self, message: str, code: str = "NO_DEVICE") -> None:
        super().__init__(message)
        self.code = _known(code)

    def __reduce__(self) -> tuple[type[DeviceError], tuple[str, str]]:
        return type(self), (str(self), self.code)


class UsageError(Her2fastError):
    """The call or a file given to it is wrong (manifest, configuration, package)."""
