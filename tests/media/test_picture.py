"""A picture file becomes upright RGB, or one line that says why not."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from tests.clips import numbered_picture, read_number, write_clip
from vidllava.errors import MediaError, ResourceError
from vidllava.media.decode import decode
from vidllava.media.files import media_kind, picture_format
from vidllava.media.hdr import to_sdr
from vidllava.media.picture import load_picture, picture_notes, picture_size
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.media.worker import WorkerSampler

pillow_heif.register_heif_opener()  # to write them
SPREAD = "grey of 32 bits: its values are spread from black to white"
LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
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
        (b"\x00\x00\x00\x18ftypheic" + bytes(100), "is a truncated or damaged HEIC picture"),
        (b"\x00\x00\x01\x00\x01\x00" + bytes(100), "is an ICO picture, a format that is not read"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100), "is a JPEG 2000 picture, a format that is not read"),
        (b"<html>no</html>", "is an HTML page"),
        (b"\x01\x02\x03" * 50, "is not a picture of a known format"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, data, message):
    (tmp_path / "p.jpg").write_bytes(data)
    assert error_of(tmp_path / "p.jpg").startswith(message)


@pytest.mark.parametrize(
    ("dtype", "low", "top"),
    [
        *((np.int32, *ends) for ends in [(0, 255), (0, 100_000), (0, 2**31 - 1), (-500, 1500)]),
        *((np.float32, *ends) for ends in [(0, 255), (0, 1e9), (-5, 15), (0.001, 0.002)]),
    ],
)
def test_grey_of_32_bits_is_spread_over_its_own_range(tmp_path, dtype, low, top):
    """No such file says which value is white: from the smallest value (or 0) to the largest, and said."""
    values = np.linspace(low, top, 256).astype(dtype)[None].repeat(4, axis=0)
    Image.fromarray(values).save(tmp_path / "p.tiff")
    levels = values[0].astype(np.float64)
    black = min(levels.min(), 0.0)
    expected = np.rint((levels - black) / (levels.max() - black) * 255)
    assert np.abs(load_picture(tmp_path / "p.tiff")[0, :, 0] - expected).max() <= 1
    assert picture_notes(tmp_path / "p.tiff") == (
        "grey of 32 bits: its values are spread from black to white",
    )


def test_grey_of_32_bits_that_is_not_finite_or_all_one_value_is_read(tmp_path):
    values = np.zeros((2, 4), np.float32)
    values[0] = (np.nan, np.inf, -np.inf, 3.0)
    Image.fromarray(values).save(tmp_path / "p.tiff")
    assert load_picture(tmp_path / "p.tiff")[0, :, 0].tolist() == [0, 255, 0, 255]
    Image.fromarray(np.zeros((2, 4), np.int32)).save(tmp_path / "p.tiff")
    assert load_picture(tmp_path / "p.tiff").max() == 0


def saved(picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, **options)
    return buffer.getvalue()


def notes_of(path: Path) -> tuple[str, ...]:
    """The same from here and from a worker."""
    found = picture_notes(path)
    with WorkerSampler() as sampler:
        assert sampler.picture_notes(str(path)) == found
    return found


def test_a_file_of_one_picture_has_no_notes(tmp_path):
    for name in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF"):
        (tmp_path / "p").write_bytes(saved(UPRIGHT, format=name))
        assert picture_notes(tmp_path / "p") == (), name


def test_pages_and_pictures_that_are_not_read_are_named(tmp_path):
    others = [Image.fromarray(numbered_picture(number)) for number in (1, 2)]
    many = {"save_all": True, "append_images": others}
    (tmp_path / "p.tiff").write_bytes(saved(UPRIGHT, format="TIFF", **many))
    assert notes_of(tmp_path / "p.tiff") == ("holds 3 pages: only the first is read",)
    (tmp_path / "p.mpo").write_bytes(saved(UPRIGHT, format="MPO", quality=95, **many))
    assert picture_notes(tmp_path / "p.mpo") == ("holds 3 pictures: only the first is read",)
    (tmp_path / "p.heic").write_bytes(saved(UPRIGHT, format="HEIF", **LOSSLESS, **many, primary_index=1))
    assert picture_notes(tmp_path / "p.heic") == ("holds 3 pictures: only the primary one is read",)
    for path, number in (("p.tiff", 77), ("p.mpo", 77), ("p.heic", 1)):
        assert read_number(load_picture(tmp_path / path)) == number
        assert media_kind(tmp_path / path) == "picture"


def test_a_preview_before_the_picture_is_named(tmp_path):
    (tmp_path / "p.tiff").write_bytes(saved(UPRIGHT, format="TIFF", tiffinfo={254: 1}))
    assert picture_notes(tmp_path / "p.tiff") == (
        "its first page is a reduced copy (a preview): that is what is read",
    )


def test_damage_behind_the_first_page_does_not_cost_the_first(tmp_path):
    data = bytearray(saved(UPRIGHT, format="TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, len(data) - 1)  # where the next page would be
    (tmp_path / "p.tiff").write_bytes(data)
    assert np.array_equal(load_picture(tmp_path / "p.tiff"), UPRIGHT)
    assert picture_notes(tmp_path / "p.tiff") in ((), ("what follows its first picture cannot be read",))


def test_the_clip_of_a_motion_photo_is_named(tmp_path):
    clip = write_clip(tmp_path / "c.mp4", num_frames=3).read_bytes()
    still = saved(UPRIGHT, format="JPEG", quality=95, exif=exif_with_a_thumbnail())
    told = ("holds a clip behind the still (a motion photo): only the still is read",)
    for between in (b"", b"MotionPhoto_Data", b"\0" * 100):
        (tmp_path / "p.jpg").write_bytes(still + between + clip)
        assert picture_notes(tmp_path / "p.jpg") == told
        assert media_kind(tmp_path / "p.jpg") == "picture"
    heic = saved(UPRIGHT, format="HEIF", **LOSSLESS)
    (tmp_path / "p.heic").write_bytes(heic + struct.pack(">I4s", 8 + len(clip), b"mpvd") + clip)
    assert picture_notes(tmp_path / "p.heic") == told
    assert np.array_equal(load_picture(tmp_path / "p.heic"), UPRIGHT)


def exif_with_a_thumbnail() -> Image.Exif:
    """A JPEG within the JPEG, which is not one behind it."""
    exif = Image.Exif()
    exif[0x927C] = saved(UPRIGHT[:16, :16], format="JPEG")
    return exif


def test_jpegs_in_a_row_are_a_clip_and_two_are_a_picture_with_a_note(tmp_path):
    frames = [
        saved(numbered_picture(number), format="JPEG", quality=95, restart_marker_blocks=3)
        for number in range(6)
    ]
    path = tmp_path / "camera.mjpeg"
    path.write_bytes(b"".join(frames))
    assert media_kind(path) == "video"
    info = probe(path)
    plan = plan_frames(info.frame_times, SamplingRequest(), source=str(path))
    assert [read_number(frame) for frame in decode(info, plan).pixels] == list(range(6))
    path.write_bytes(b"".join(frames[:2]))
    assert media_kind(path) == "picture"
    assert picture_notes(path) == ("holds more than one JPEG picture: only the first is read",)
    # A preview of another size, or a cut end, makes no clip.
    path.write_bytes(frames[0] + frames[1] + saved(UPRIGHT[:32, :32], format="JPEG"))
    assert media_kind(path) == "picture"
    path.write_bytes(b"".join(frames[:3])[:-2])
    assert media_kind(path) == "picture"
    path.write_bytes(saved(UPRIGHT, format="JPEG", exif=exif_with_a_thumbnail()))
    assert (media_kind(path), picture_notes(path)) == ("picture", ())


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_heic_is_read(tmp_path, bits):
    if bits == 8:
        data = saved(UPRIGHT, format="HEIF", **LOSSLESS)
    else:
        deep = (UPRIGHT.astype(np.uint16) << 8) | UPRIGHT
        buffer = io.BytesIO()
        pillow_heif.encode("RGB;16", (128, 96), deep.tobytes(), buffer, save_to_12bit=bits == 12, **LOSSLESS)
        data = buffer.getvalue()
    (tmp_path / "p.jpg").write_bytes(data)
    assert picture_size(tmp_path / "p.jpg") == (96, 128)
    assert np.abs(load_picture(tmp_path / "p.jpg").astype(int) - UPRIGHT).max() <= (0 if bits == 8 else 1)
    with WorkerSampler() as sampler:
        assert np.array_equal(sampler.picture(str(tmp_path / "p.jpg")), load_picture(tmp_path / "p.jpg"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(tmp_path, orientation):
    """pillow-heif turns EXIF's orientation into the file's own, which its decoder applies."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(UPRIGHT)
    image.save(tmp_path / "p.heic", exif=exif.tobytes(), **LOSSLESS)
    expected = np.asarray(ImageOps.exif_transpose(with_exif(image, exif)))
    assert np.array_equal(load_picture(tmp_path / "p.heic"), expected)
    assert picture_size(tmp_path / "p.heic") == expected.shape[:2]


def with_exif(image: Image.Image, exif: Image.Exif) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    return Image.open(buffer)


def test_transparent_parts_of_heic_lie_over_white(tmp_path):
    rgba = np.dstack([UPRIGHT, np.full(UPRIGHT.shape[:2], 255, np.uint8)])
    rgba[:40, :, 3] = 0
    (tmp_path / "p.heic").write_bytes(saved(rgba, format="HEIF", **LOSSLESS))
    found = load_picture(tmp_path / "p.heic")
    assert (found[:40] == 255).all()
    assert np.array_equal(found[41:], UPRIGHT[41:])


def test_hdr_heic_is_brought_to_sdr_as_video_is(tmp_path):
    coded = np.linspace(0, 65535, 128).astype(np.uint16)[None, :, None].repeat(96, 0).repeat(3, 2)
    pillow_heif.encode(
        "RGB;16",
        (128, 96),
        np.ascontiguousarray(coded).tobytes(),
        str(tmp_path / "p.heic"),
        color_primaries=9,
        transfer_characteristics=16,
        full_range_flag=1,
        **LOSSLESS,
    )
    found, expected = load_picture(tmp_path / "p.heic").astype(int), to_sdr(coded, "PQ", wide=True)
    assert np.abs(found - expected).max() <= 4  # 10 bits of 16
    assert picture_notes(tmp_path / "p.heic") == ("HDR (PQ): shown as SDR, highlights rolled off (BT.2390)",)


def test_heic_without_its_reader_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "p.heic").write_bytes(saved(UPRIGHT, format="HEIF"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    told = "is a HEIC picture, a format that is not read (pip install pillow-heif, or convert it to JPEG)"
    assert error_of(tmp_path / "p.heic") == told


def test_avif_without_its_reader_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "p.avif").write_bytes(saved(UPRIGHT, format="AVIF"))
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    assert error_of(tmp_path / "p.avif").startswith(
        "is an AVIF picture, a format that is not read (install a"
    )


def test_a_still_of_the_common_brand_is_told_by_the_brands_that_follow():
    head = b"\0\0\0\x20ftypmif1\0\0\0\0mif1%smiaf\0\0\0\0" + bytes(64)
    assert picture_format(head % b"avif") == "AVIF"
    assert picture_format(head % b"heic") == "HEIC"


def test_an_animated_png_of_one_frame_is_a_picture(tmp_path):
    data = saved(UPRIGHT, format="PNG")
    one = png_chunk(b"acTL", struct.pack(">II", 1, 0))
    (tmp_path / "p.png").write_bytes(data[:33] + one + data[33:])
    assert media_kind(tmp_path / "p.png") == "picture"


def test_a_path_that_is_no_file_is_never_opened(tmp_path):
    assert error_of(tmp_path).startswith("is a directory")
    assert error_of(tmp_path / "missing.png").startswith("no such file")
    (tmp_path / "empty.png").touch()
    assert error_of(tmp_path / "empty.png").startswith("is empty (0 bytes)")
