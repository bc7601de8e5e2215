# SPDX-License-Identifier: Apache-2.0
"""Names of files as text that every reader of UTF-8 can take."""

from __future__ import annotations

__all__ = ["printable"]


def printable(name: str) -> str:
    r"""Write a file's name so that it can be stored as UTF-8.

    Python holds bytes that are not UTF-8 as lone surrogates, which no file can. Such a
    byte becomes ``\xNN``, any other surrogate ``\uNNNN``; the rest stays as it is.

    Examples
    --------
    >>> printable("case 7.svs")
    'case 7.svs'
    >>> printable(b"case\xff.svs".decode("utf-8", "surrogateescape"))
    'case\\xff.svs'
    """
    if name.isascii():
        return name
    return "".join(_escape(character) for character in name)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if 0xD800 <= code <= 0xDFFF else character
