# SPDX-License-Identifier: Apache-2.0
"""Small slides of vendors whose samples are gigabytes, for OpenSlide itself to read.

Pixels are lossless, so that a slide reads as it was painted. Each writer takes the
whole of level 0 and says where it was scanned; the rest is not in the file.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from tiff_files import ASCII, BIG, CLASSIC_LE, LONG, SHORT, Page, lay_out

Rgb = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # x0, y0, width, height in level-0 pixels

TILE_PX = 256
SPACING_UM = 0.5
SCN_XMLNS = "http://www.leica-microsystems.com/scn/2010/10/01"


def shrink(rgb: Rgb, n: int) -> Rgb:
    """Every level's pixel is the mean of n x n, rounded half up."""
    height, width = rgb.shape[0] // n, rgb.shape[1] // n
    blocks = rgb[: height * n, : width * n].reshape(height, n, width, n, 3)
    sums = blocks.astype(np.int64).sum(axis=(1, 3))
    return ((2 * sums + n * n) // (2 * n * n)).astype(np.uint8)


def cut(rgb: Rgb, box: Box) -> Rgb:
    x0, y0, width, height = box
    return rgb[y0 : y0 + height, x0 : x0 + width]


def write_scn(path: Path, rgb: Rgb, areas: Sequence[Box], spacing_um: float) -> Path:
    """Leica SCN: a directory per area and level; corners are multiples of 4 px."""
    nm = round(spacing_um * 1000)
    height, width = rgb.shape[:2]
    images, pages = [], [np.full((64, 64, 3), 200, np.uint8)]  # a macro comes first

    def image(name: str, box: Box, dimensions: str) -> str:
        x0, y0, w, h = (v * nm for v in box)
        return (
            f'<image name="{name}"><creationDate>x</creationDate>'
            f'<device model="m" version="v"/><pixels>{dimensions}</pixels>'
            f'<view sizeX="{w}" sizeY="{h}" offsetX="{x0}" offsetY="{y0}"/>'
            "<scanSettings><objectiveSettings><objective>20</objective>"
            "</objectiveSettings><illuminationSettings><numericalAperture>0.4"
            "</numericalAperture><illuminationSource>brightfield</illuminationSource>"
            "</illuminationSettings></scanSettings></image>"
        )

    whole = '<dimension sizeX="64" sizeY="64" ifd="0"/>'
    images.append(image("macro", (0, 0, width, height), whole))
    for index, box in enumerate(areas):
        dimensions = ""
        for n in (1, 4):
            part = shrink(cut(rgb, box), n)
            dimensions += (
                f'<dimension sizeX="{part.shape[1]}" sizeY="{part.shape[0]}" '
                f'r="{n // 4}" ifd="{len(pages)}"/>'
            )
            pages.append(part)
        images.append(image(f"area{index}", box, dimensions))
    xml = (
        f'<?xml version="1.0"?><scn xmlns="{SCN_XMLNS}"><collection '
        f'sizeX="{width * nm}" sizeY="{height * nm}"><barcode>secret</barcode>'
        + "".join(images)
        + "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as out:
        for index, page in enumerate(pages):
            out.write(
                page,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="deflate",
                description=xml if index == 0 else None,
                resolution=(1e4 / spacing_um, 1e4 / spacing_um),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def _sparse_page(
    rgb: Rgb,
    scanned: Sequence[Box],
    n: int,
    more: dict[int, tuple[int, Sequence[float] | bytes]],
) -> Page:
    """A level in Deflate tiles; those over no scanned part of level 0 are left out."""
    height, width = rgb.shape[:2]
    blobs = []
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            x0, y0, side = x * n, y * n, TILE_PX * n
            inside = any(
                x0 < bx + bw and bx < x0 + side and y0 < by + bh and by < y0 + side
                for bx, by, bw, bh in scanned
            )
            tile = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
            part = rgb[y : y + TILE_PX, x : x + TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            blobs.append(zlib.compress(tile.tobytes()) if inside else b"")
    tags: dict[int, tuple[int, Sequence[float] | bytes]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [8]),
        262: (SHORT, [2]),
        277: (SHORT, [3]),
        284: (SHORT, [1]),
        322: (LONG, [TILE_PX]),
        323: (LONG, [TILE_PX]),
    }
    return Page(tags | more, blobs)


def write_philips(
    path: Path, rgb: Rgb, scanned: Sequence[Box], spacing_um: float
) -> Path:
    """Philips TIFF: sparse tiles, level sizes padded to whole tiles, spacing in XML."""
    spacings = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" '
        'PMSVR="IDoubleArray">'
        f'"{spacing_um * n / 1000}" "{spacing_um * n / 1000}"</Attribute></DataObject>'
        for n in (1, 2, 4)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" PMSVR="IString">WSI</Attribute>'
        '<Attribute Name="DICOM_PIXEL_SPACING" PMSVR="IDoubleArray">'
        f'"{spacing_um / 1000}" "{spacing_um / 1000}"</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" '
        f'PMSVR="IDataObjectArray"><Array>{spacings}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    pages = []
    for n in (1, 2, 4):
        level = shrink(rgb, n)
        more: dict[int, tuple[int, Sequence[float] | bytes]] = {
            254: (LONG, [int(n > 1)])
        }
        if n == 1:
            more |= {270: (ASCII, xml.encode()), 305: (ASCII, b"Philips DP v1.0\0")}
        else:
            # The trap of this format: the stated size is the tiles', not the image's.
            height, width = (-(-side // TILE_PX) * TILE_PX for side in level.shape[:2])
            padded = np.full((height, width, 3), 255, np.uint8)
            padded[: level.shape[0], : level.shape[1]] = level
            level = padded
        pages.append(_sparse_page(level, scanned, n, more))
    lay_out(CLASSIC_LE, pages).write(path)
    return path


def write_bif(path: Path, rgb: Rgb, areas: Sequence[Box], spacing_um: float) -> Path:
    """Ventana BIF: areas of whole tiles without overlap, and a level of 1/2.

    The frame begins at the left edge of the canvas and at the highest area.
    """
    height, width = rgb.shape[:2]
    infos, origins = "", ""
    for index, (x0, y0, w, h) in enumerate(areas):
        columns, rows = w // TILE_PX, h // TILE_PX
        joints = ""

        numbers = np.arange(1, rows * columns + 1).reshape(rows, columns)
        numbers[1::2] = numbers[1::2, ::-1]  # there and back,
        numbers = numbers[::-1]  # from the bottom
        for row in range(rows):
            for column in range(columns):
                here = numbers[row, column]
                for there, direction in (
                    ((column + 1, row), "RIGHT"),
                    ((column, row - 1), "UP"),
                ):
                    if there[0] < columns and there[1] >= 0:
                        other = numbers[there[1], there[0]]
                        joints += (
                            f'<TileJointInfo Tile1="{here}" Tile2="{other}" '
                            f'Direction="{direction}" OverlapX="0" OverlapY="0" '
                            'FlagJoined="1" Confidence="99"/>'
                        )
        infos += (
            f'<ImageInfo AOIScanned="1" AOIIndex="{index}" Width="{TILE_PX}" '
            f'Height="{TILE_PX}" NumRows="{rows}" NumCols="{columns}" '
            f'Pos-X="{x0}" Pos-Y="{height - y0 - h}">{joints}</ImageInfo>'
        )
        origins += f'<AOI{index} OriginX="{x0}" OriginY="{y0}"/>'
    stitching = (
        '<?xml version="1.0"?><EncodeInfo Ver="2"><SlideInfo/><SlideStitchInfo>'
        f"{infos}</SlideStitchInfo><AoiOrigin>{origins}</AoiOrigin></EncodeInfo>"
    )
    scan = (
        f'<?xml version="1.0"?><iScan Magnification="20" ScanRes="{spacing_um}" '
        'Z-layers="1" UnitNumber="secret"/>'
    )
    label = np.full((TILE_PX, TILE_PX, 3), 90, np.uint8)
    pages = [
        _sparse_page(
            label,
            [(0, 0, 1, 1)],
            1,
            {270: (ASCII, b"Label Image\0"), 700: (1, scan.encode())},
        )
    ]
    for level, n in enumerate((1, 2)):
        more: dict[int, tuple[int, Sequence[float] | bytes]] = {
            270: (ASCII, f"level={level} mag={20 // n} quality=90\0".encode())
        }
        if level == 0:
            more[700] = (1, stitching.encode())
        pages.append(_sparse_page(shrink(rgb, n), areas, n, more))
    lay_out(BIG, pages).write(path)
    assert height % TILE_PX == 0
    assert width % TILE_PX == 0
    return path


def _png(rgb: Rgb) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "png")
    return out.getvalue()


def write_mirax(
    path: Path,
    rgb: Rgb,
    scanned: Sequence[Box],
    spacing_um: float,
    levels: int = 3,
    broken: Sequence[tuple[int, int]] = (),
) -> Path:
    """MIRAX: images in a data file, an index, settings; `broken` level-0 images."""
    side = TILE_PX
    columns, rows = rgb.shape[1] // side, rgb.shape[0] // side
    assert rgb.shape[:2] == (rows * side, columns * side)
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(b"a picture of the slide stands here")
    ident = "0123456789ABCDEF0123456789ABCDEF"
    settings = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02",
            "SLIDE_ID": ident,
            "SLIDE_NAME": "secret",
            "IMAGENUMBER_X": columns,
            "IMAGENUMBER_Y": rows,
            "OBJECTIVE_MAGNIFICATION": 20,
            "CameraImageDivisionsPerSide": 1,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": levels,
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    data = bytearray(b"data ")
    pages = []
    for level in range(levels):
        name = f"LAYER_0_LEVEL_{level}_SECTION"
        settings["HIERARCHICAL"][f"HIER_0_VAL_{level}_SECTION"] = name
        n = 1 << level
        settings[name] = {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": spacing_um * n,
            "MICROMETER_PER_PIXEL_Y": spacing_um * n,
            "IMAGE_FORMAT": "PNG",
            "IMAGE_FILL_COLOR_BGR": 16777215,
            "DIGITIZER_WIDTH": side,
            "DIGITIZER_HEIGHT": side,
            "IMAGE_CONCAT_FACTOR": 1 if level else 0,
        }
        part = shrink(rgb, n)
        entries = []
        for y in range(0, rows - n + 1, n):
            for x in range(0, columns - n + 1, n):
                px, py = x * side, y * side
                if not any(
                    px < bx + bw
                    and bx < px + n * side
                    and py < by + bh
                    and by < py + n * side
                    for bx, by, bw, bh in scanned
                ):
                    continue
                i, j = py // n, px // n
                image = _png(np.ascontiguousarray(part[i : i + side, j : j + side]))
                if level == 0 and (x, y) in broken:
                    image = image[:60] + bytes(len(image) - 60)
                entries.append((y * columns + x, len(data), len(image), 0))
                data += image
        pages.append(entries)
    (folder / "Data0000.dat").write_bytes(data)
    index = bytearray(b"01.02" + ident.encode())
    root = len(index) + 8
    index += struct.pack("<ii", root, root)
    index += bytes(4 * levels)
    for level, entries in enumerate(pages):
        at = len(index)
        struct.pack_into("<i", index, root + 4 * level, at)
        index += struct.pack("<ii", 0, at + 8)
        index += struct.pack("<ii", len(entries), 0)
        for entry in entries:
            index += struct.pack("<iiii", *entry)
    (folder / "Index.dat").write_bytes(index)
    text = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for group, keys in settings.items()
    )
    (folder / "Slidedat.ini").write_text(text)
    return path
