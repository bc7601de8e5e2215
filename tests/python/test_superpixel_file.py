# SPDX-License-Identifier: Apache-2.0
"""The file of support vectors, damaged: refused with a code, or read as it stands."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from her2fast.errors import SlideError
from her2fast.kernels.epithelium import SUPERPIXEL_FEATURES
from her2fast.models import superpixel_svm
from her2fast.models.config import SuperpixelSvm
from her2fast.models.superpixel_svm import Machine, read_machine

RULE = SuperpixelSvm(
    size_px=16,
    compactness=10.0,
    iterations=3,
    gamma=1e-6,
    intercept=0.0,
    slope=1.0,
    offset=0.0,
)
CODES = ("MODEL_SHAPE", "NON_FINITE")


def machine() -> Machine:
    rng = np.random.default_rng(5)
    vectors = rng.integers(0, 40, (2, SUPERPIXEL_FEATURES)).astype(np.int16)
    return Machine(RULE, vectors, np.array([0.5, -2.0]))


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def outcome(data: bytes) -> str | None:
    try:
        read_machine(data, RULE, "file")
    except SlideError as error:
        return error.code
    return None


def npy(array: object) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(array), allow_pickle=False)
    return out.getvalue()


def test_what_was_written_is_read() -> None:
    own = machine()
    by_column = Machine(RULE, np.asfortranarray(own.vectors), own.coefficients)
    for one in (own, by_column):
        again = read_machine(one.to_bytes(), RULE, "file")
        np.testing.assert_array_equal(again.vectors, own.vectors)
        np.testing.assert_array_equal(again.coefficients, own.coefficients)
        assert again.vectors.flags.c_contiguous


def test_flipped_bytes_of_the_archive_end_in_a_code() -> None:
    data = machine().to_bytes()
    codes = []
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] ^= mask
            codes.append(outcome(bytes(changed)))
    # A date or an attribute may differ; what is stored may not.
    assert set(codes) <= {"MODEL_SHAPE", None}
    assert codes.count("MODEL_SHAPE") > 0.8 * len(codes)


def test_flipped_bytes_behind_a_right_checksum_end_in_a_code() -> None:
    """Of the header above all, which is parsed as a Python literal."""
    parts = parts_of(machine().to_bytes())
    codes = []
    for name, content in parts.items():
        for at in range(min(len(content), 200)):
            for value in (0, 0x28, 0x31, 0x39, 0x7B, 0x80, 0xFF):
                changed = bytearray(content)
                changed[at] = value
                codes.append(outcome(zipped({**parts, name: bytes(changed)})))
    assert set(codes) <= {*CODES, None}
    assert codes.count("MODEL_SHAPE") > 0.4 * len(codes)


def test_cut_files_end_in_a_code() -> None:
    data = machine().to_bytes()
    assert {outcome(data[:end]) for end in range(0, len(data) - 1, 7)} == {
        "MODEL_SHAPE"
    }
    parts = parts_of(data)
    for name, content in parts.items():
        for end in range(0, len(content), 5):
            assert outcome(zipped({**parts, name: content[:end]})) == "MODEL_SHAPE"
        assert outcome(zipped({**parts, name: content + b"\0"})) == "MODEL_SHAPE"


def test_no_more_is_read_than_a_machine_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = parts_of(machine().to_bytes())
    monkeypatch.setattr(superpixel_svm, "MAX_VECTORS", 3)
    many = np.zeros((4, SUPERPIXEL_FEATURES), np.int16)
    with pytest.raises(SlideError, match="m up to 3, got int16") as caught:
        read_machine(zipped({**parts, "vectors.npy": npy(many)}), RULE, "file")
    assert caught.value.code == "MODEL_SHAPE"
    # A header that promises what would fill the memory, behind a row of zeros.
    huge = parts["vectors.npy"].replace(b"(2, 234)", b"(2000000000000, 234)")
    assert outcome(zipped({**parts, "vectors.npy": huge})) == "MODEL_SHAPE"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_coefficients_that_are_no_numbers_are_refused(value: float) -> None:
    own = machine()
    broken = Machine(RULE, own.vectors, np.array([0.5, value]))
    assert outcome(broken.to_bytes()) == "NON_FINITE"


def test_logits_beyond_their_type_are_refused() -> None:
    rgb = np.full((32, 32, 3), 120, np.uint8)
    own = machine()
    assert np.isfinite(own.logits(rgb)).all()
    rule = RULE.model_copy(update={"intercept": 1e300})
    with pytest.raises(SlideError) as caught:
        Machine(rule, own.vectors, own.coefficients).logits(rgb)
    assert caught.value.code == "NON_FINITE"
