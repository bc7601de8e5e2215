# SPDX-License-Identifier: Apache-2.0
"""Seeds for the fuzz targets, from the corpus: `python tests/fuzz/seeds.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import corpus
import tiff_files as tf


def small_pages(dialect: tf.Dialect) -> list[tf.Page]:
    """Two levels of few bytes: the fuzzer tries more of them in a second."""
    rgb = corpus.picture()[:64, :64]
    if not dialect.ndpi:
        return [corpus.tiled_page(rgb, 1), corpus.tiled_page(rgb[::2, ::2].copy(), 2)]
    return tf.ndpi_pages(rgb, restart_mcus=8)[:2]


def main(folder: Path) -> None:
    for target in ("fuzz_directory", "fuzz_slide", "fuzz_tile"):
        (folder / target).mkdir(parents=True, exist_ok=True)
    for dialect in corpus.DIALECTS:
        for compact in (True, False):
            pages = small_pages(dialect) if compact else corpus.pages(dialect)
            data = tf.lay_out(dialect, pages).to_bytes()
            for target in ("fuzz_directory", "fuzz_slide"):
                (folder / target / f"{dialect.name}-{compact:d}").write_bytes(data)
    jpeg = tf.encode_jpeg(corpus.picture()[:64, :64].copy())
    for edit in ("none", *corpus.JPEG_EDITS):
        edited = jpeg if edit == "none" else corpus.edit_jpeg(jpeg, edit)
        for choice in (0, 3, 5):
            seed = folder / "fuzz_tile" / f"{edit}-{choice}"
            seed.write_bytes(bytes([choice]) + edited)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
