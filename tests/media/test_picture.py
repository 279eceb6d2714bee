"""A picture file becomes upright RGB, or one line that says why not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips import numbered_picture
from vidllava.errors import MediaError, ResourceError
from vidllava.media.picture import load_picture

UPRIGHT = numbered_picture(77)


def error_of(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        load_picture(path)
    line = str(caught.value)
    assert line.isprintable()
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_come_back_bit_by_bit(tmp_path, name):
    picture = UPRIGHT if name != "GIF" else (UPRIGHT > 127).astype(np.uint8) * 255
    Image.fromarray(picture).save(
        tmp_path / "picture", format=name, **({"lossless": True} if name == "WEBP" else {})
    )
    assert np.array_equal(load_picture(tmp_path / "picture"), picture)


@pytest.mark.parametrize("name", ["JPEG", "AVIF"])
def test_lossy_formats_come_close(tmp_path, name):
    Image.fromarray(UPRIGHT).save(tmp_path / "picture", format=name, quality=95)
    assert np.abs(load_picture(tmp_path / "picture").astype(int) - UPRIGHT).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path, orientation):
    # CIPA DC-008, 4.6.5: how the stored rows and columns lie in the upright picture.
    stored = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: UPRIGHT.swapaxes(0, 1),
        6: np.rot90(UPRIGHT, k=1),
        7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(UPRIGHT, k=-1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(load_picture(tmp_path / "p.png"), UPRIGHT)


def test_transparent_parts_lie_over_white(tmp_path):
    rgba = np.dstack([UPRIGHT, np.full(UPRIGHT.shape[:2], 255, np.uint8)])
    rgba[:40, :, 3] = 0
    rgba[40, 0] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "p.png")
    found = load_picture(tmp_path / "p.png")
    assert (found[:40] == 255).all()
    assert np.array_equal(found[41:], UPRIGHT[41:])
    assert abs(int(found[40, 0, 0]) - 127) <= 1


def test_a_palette_with_a_transparent_colour_lies_over_white(tmp_path):
    image = Image.fromarray((UPRIGHT[:, :, 0] > 127).astype(np.uint8), mode=None).convert("P")
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / "p.png", transparency=0)
    found = load_picture(tmp_path / "p.png")
    assert {tuple(map(int, colour)) for colour in found.reshape(-1, 3)} == {(255, 255, 255), (10, 200, 30)}


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / "p.png")
    assert np.abs(load_picture(tmp_path / "p.png")[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(UPRIGHT).convert(mode)
    name = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    image.save(tmp_path / "p", format=name)
    found = load_picture(tmp_path / "p")
    assert found.shape == UPRIGHT.shape
    assert found.dtype == np.uint8
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_a_truncated_or_damaged_picture_is_refused(tmp_path):
    for name in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        buffer = io.BytesIO()
        Image.fromarray(UPRIGHT).save(buffer, format=name)
        (tmp_path / "p").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        assert error_of(tmp_path / "p").startswith(f"is a truncated or damaged {name} picture"), name


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    """Above 178 million pixels Pillow raises, and says so in its own words; ours are the same for both."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ResourceError, match=r"limit of 67,108,864 pixels \(scale it down"):
        load_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"\x00\x00\x00\x18ftypheic" + bytes(100),
            "is a HEIC picture, a format that is not read (convert it to JPEG",
        ),
        (b"\x00\x00\x01\x00\x01\x00" + bytes(100), "is a ICO picture, a format that is not read"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100), "is a JPEG 2000 picture, a format that is not read"),
        (b"<html>no</html>", "is an HTML page"),
        (b"\x01\x02\x03" * 50, "is no picture of a known format"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, data, message):
    (tmp_path / "p.jpg").write_bytes(data)
    assert error_of(tmp_path / "p.jpg").startswith(message)


def test_a_path_that_is_no_file_is_never_opened(tmp_path):
    assert error_of(tmp_path).startswith("is a directory")
    assert error_of(tmp_path / "missing.png").startswith("no such file")
    (tmp_path / "empty.png").touch()
    assert error_of(tmp_path / "empty.png").startswith("is empty (0 bytes)")
