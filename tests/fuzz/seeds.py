# SPDX-License-Identifier: Apache-2.0
"""Seeds for the fuzz targets, from the corpus: `python tests/fuzz/seeds.py FOLDER`."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import corpus
import tiff_files as tf

# A little more than the longest seed: longer inputs cost time and show nothing new.
MAX_BYTES = {
    "fuzz_directory": 2048,
    "fuzz_ndpi": 4608,
    "fuzz_slide": 4608,
    "fuzz_tile": 12288,
}
# fuzz_tile's first byte: codec in the low three bits, 1/1 to 1/8 in the next two.
INFLATE, PREDICTED, INTERVAL, FULL_COLOR, ENTROPY, WHOLE = 1, 2, 3, 4, 6, 0


def small_pages(dialect: tf.Dialect) -> list[tf.Page]:
    """Two levels of few bytes: the fuzzer tries more of them in a second."""
    rgb = corpus.picture()[:64, :64]
    if not dialect.ndpi:
        return [corpus.tiled_page(rgb, 1), corpus.tiled_page(rgb[::2, ::2].copy(), 2)]
    return tf.ndpi_pages(rgb, restart_mcus=8)[:2]


def without_pixels(pages: list[tf.Page]) -> list[tf.Page]:
    """The directories alone: their parser looks at nothing else."""
    return [tf.Page(page.tags, [b"pixels"], page.tiled) for page in pages]


def entropy_of(jpeg: bytes) -> bytes:
    return b"".join(tf.split_jpeg(jpeg)[1])


def write_dictionary(path: Path) -> None:
    """Tag numbers and types, which chance finds late, in both byte orders."""
    tags = sorted(corpus.pages(tf.CLASSIC_LE)[0].tags | corpus.pages(tf.NDPI)[0].tags)
    lines = []
    for tag in [*tags, 273, 279, 324, 325, 330, 347, 65432]:
        for order in ("little", "big"):
            escaped = "".join(f"\\x{b:02x}" for b in tag.to_bytes(2, order))  # type: ignore[arg-type]
            lines.append(f'"{escaped}"')
    path.write_text("\n".join(lines) + "\n")


def main(folder: Path) -> None:
    for target, size in MAX_BYTES.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        options = [f"-max_len={size}"]
        if target != "fuzz_tile":
            options.append(f"-dict={folder / 'tiff.dict'}")
        (folder / f"{target}.options").write_text(" ".join(options) + "\n")
    write_dictionary(folder / "tiff.dict")
    for dialect in corpus.DIALECTS:
        pages = small_pages(dialect)
        data = tf.lay_out(dialect, without_pixels(pages)).to_bytes()
        (folder / "fuzz_directory" / dialect.name).write_bytes(data)
        data = tf.lay_out(dialect, pages).to_bytes()
        (folder / "fuzz_slide" / dialect.name).write_bytes(data)
        if dialect.ndpi:
            (folder / "fuzz_ndpi" / dialect.name).write_bytes(data)
    rgb = corpus.picture()[:64, :64].copy()
    plain = tf.lay_out(tf.NDPI, tf.ndpi_pages(rgb, restart_mcus=8, index=False)[:1])
    (folder / "fuzz_ndpi" / "scanned").write_bytes(plain.to_bytes())
    restarts = tf.encode_jpeg(rgb, restart_mcus=8)
    (folder / "fuzz_ndpi" / "stream").write_bytes(restarts)
    jpeg = tf.encode_jpeg(rgb)
    for edit in ("none", *corpus.JPEG_EDITS):
        edited = jpeg if edit == "none" else corpus.edit_jpeg(jpeg, edit)
        for choice in (WHOLE, WHOLE + 8, INTERVAL):
            seed = folder / "fuzz_tile" / f"{edit}-{choice}"
            seed.write_bytes(bytes([choice]) + edited)
    for denominator in range(4):
        seed = folder / "fuzz_tile" / f"entropy-{denominator}"
        seed.write_bytes(bytes([ENTROPY + 8 * denominator]) + entropy_of(jpeg))
    for name, picture in (("full", rgb), ("full-flat", rgb // 64 * 64)):
        entropy = entropy_of(tf.encode_jpeg(picture))
        (folder / "fuzz_tile" / name).write_bytes(bytes([FULL_COLOR]) + entropy)
    for choice in (INFLATE, PREDICTED):
        seed = folder / "fuzz_tile" / f"inflate-{choice}"
        seed.write_bytes(bytes([choice]) + zlib.compress(rgb.tobytes()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
