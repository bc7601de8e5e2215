# SPDX-License-Identifier: Apache-2.0
"""A scanned slide without Python in the process gives the result of `her2fast score`.

Level-0 pixels of a shipped slide are pushed in strips and in tiles out of order into
libher2fast, models by libher2fast_torch; the record must be that of
``her2fast.score(reading="exact")``, which reads level 0 of this slide.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import her2fast
from her2fast.models.package import load_package

#: What names where pixels and models came from; all else must be equal.
SOURCE_KEYS = {"slide", "reading_mode", "measurement_key", "decision_key", "device"}
ORDERS = (["--strip", "2000x300"], ["--strip", "333x450", "--order", "random"])


INVALID_ARGUMENT, NO_DEVICE, MODEL_SHAPE = -1, -5, 23


class PackageOptions(ctypes.Structure):
    """her2_package_options."""

    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("folder", ctypes.c_char_p),
        ("known_models", ctypes.c_char_p),
        ("allow_unknown", ctypes.c_int32),
    ]


class TorchOptions(ctypes.Structure):
    """her2_torch_options."""

    _fields_ = [("struct_size", ctypes.c_uint64), ("device", ctypes.c_char_p)]


RUN = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p),
    *(ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64),
)


class EngineTable(ctypes.Structure):
    """her2_engine_table."""

    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("run", RUN),
        ("close", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("message", ctypes.c_void_p),
    ]


def refusals(engine: str, folder: Path) -> list[str]:
    """What the provider should have refused and did not, or the other way round."""
    c = ctypes.CDLL(engine)  # libher2fast comes with it
    c.her2_torch_last_error.restype = ctypes.c_char_p
    package = ctypes.c_void_p()
    options = PackageOptions(
        ctypes.sizeof(PackageOptions), str(folder).encode(), None, 1
    )
    wrong = []
    if c.her2_package_open(ctypes.byref(options), ctypes.byref(package)) != 0:
        return ["the package was refused"]
    for device in (b"abacus", b"mps", b"cuda:99"):
        torch_options = TorchOptions(ctypes.sizeof(TorchOptions), device)
        table = EngineTable(ctypes.sizeof(EngineTable))
        arguments = (package, ctypes.byref(torch_options), ctypes.byref(table))
        status = c.her2_torch_open(*arguments)
        if status != NO_DEVICE or device not in c.her2_torch_last_error():
            wrong.append(f"{device!r}: {status}, {c.her2_torch_last_error()!r}")
    table = EngineTable(8)
    if c.her2_torch_open(package, None, ctypes.byref(table)) != INVALID_ARGUMENT:
        wrong.append("a table of 8 bytes was taken")
    table = EngineTable(ctypes.sizeof(EngineTable))
    if c.her2_torch_open(None, None, ctypes.byref(table)) != INVALID_ARGUMENT:
        wrong.append("no package was taken")
    if c.her2_torch_open(package, None, ctypes.byref(table)) != 0 or not table.run:
        wrong.append(f"the package: {c.her2_torch_last_error()!r}")
    else:
        # Batches of another package: nothing is read or written, so there is no memory.
        shapes = ((1, 64, 64, 5), (1, 63, 64, 6), (1, 64, 65, 6), (33, 64, 64, 6))
        for n, height, width, outputs in (*shapes, (0, 64, 64, 6)):
            arguments = (table.context, 1, 0, None, n, height, width, None, outputs)
            status = table.run(*arguments)
            if status != MODEL_SHAPE:
                wrong.append(
                    f"{n} x {height} x {width} px, {outputs} outputs: {status}"
                )
        table.close(table.context)
    c.her2_package_close(package)
    return wrong


def main(program: str, engine: str, slide: str) -> int:
    """Returns 1 and says what differs where anything does."""
    package = load_package(None)
    folder = Path(package.classify.folder).parent
    expected = her2fast.score(slide, reading="exact", workers=2).record
    if expected["status"] != "scored":
        print(f"need a slide that is scored, got {expected['status']}")
        return 1
    wrong = refusals(engine, folder)
    if wrong:
        print("\n".join(wrong))
        return 1
    for order in ORDERS:
        with tempfile.TemporaryDirectory() as out:
            record = Path(out, "result.json")
            command = [
                program,
                str(folder),
                "--known",
                str(folder.parent / "known.json"),
            ]
            command += ["--slide", slide, "--engine", engine, "--threads", "2"]
            command += ["--json", str(record), *order]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            got = json.loads(record.read_text("utf-8"))
        if list(got) != list(expected):
            print(f"keys differ: {list(got)}")
            return 1
        differing = [
            key
            for key in expected
            if key not in SOURCE_KEYS and got[key] != expected[key]
        ]
        for key in differing:
            print(f"{order}: {key}: need {expected[key]}, got {got[key]}")
        if differing:
            return 1
    print(f"equal: {expected['score']}, {expected['class_px']} px")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
