# SPDX-License-Identifier: Apache-2.0
"""Runs every file of the corpus through a program: `archive.py RUNNER`.

The files are made on the way and go through a pipe, so nothing is stored but the one
at work.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))

import corpus
import tiff_files as tf


def record(*parts: str | bytes) -> bytes:
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4, "little") + part for part in raw)


def main(runner: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([runner, folder], stdin=subprocess.PIPE)
        assert process.stdin is not None
        for dialect in corpus.DIALECTS:
            sound = tf.lay_out(dialect, corpus.pages(dialect)).to_bytes()
            process.stdin.write(record(dialect.name, "sound", "opens", sound))
            for case, data in corpus.cases(dialect):
                allowed = "|".join(sorted(corpus.expected(case)))
                process.stdin.write(record(dialect.name, case.name, allowed, data))
        process.stdin.close()
        return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
