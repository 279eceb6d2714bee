"""From a decoded frame to pixels: transparency over white; what a library does not know is not a fault."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.clips import numbered_picture, read_number, write_clip
from vidllava.errors import MediaError
from vidllava.media import container as container_module
from vidllava.media import planned_reader
from vidllava.media.convert import Converter
from vidllava.media.decode import decode
from vidllava.media.frames import FrameBatch
from vidllava.media.probe import VideoInfo, probe, side_data
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.media.worker import WorkerSampler

HEIGHT, WIDTH = 64, 96
UNDER, OVER = (10, 40, 200), (200, 60, 20)  # what is stored under nothing, and a solid square


def layered(number: int) -> np.ndarray:
    """uint8 [H, W, 4]: a solid square, nothing left of it (but stored colours), a third of a colour below."""
    picture = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    picture[..., :3] = UNDER
    picture[:32, 48:] = (*OVER, 255)
    picture[32:, 48:] = (*OVER, 85)
    picture[:32, 48 + 4 * number] = (*OVER, 254)
    return picture


def take(path: Path) -> FrameBatch:
    info = probe(path)
    return decode(info, plan_frames(info.frame_times, SamplingRequest(), source=str(path)))


def write_layered(path: Path, codec: str, pixel_format: str) -> Path:
    with av.open(str(path), "w") as container:
        options = {"libvpx-vp9": {"lossless": "1"}, "libvpx": {"auto-alt-ref": "0"}}.get(codec, {})
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.bit_rate = 4_000_000
        stream.metadata["alpha_mode"] = "1"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(layered(number), format="rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


SEE_THROUGH = {
    "rgba.mkv": ("ffv1", "bgra", 1),
    "gbrap.mkv": ("ffv1", "gbrap10le", 1),
    "yuva420p.mkv": ("ffv1", "yuva420p", 3),
    "yuva444p.mkv": ("ffv1", "yuva444p10le", 3),
    "argb.mov": ("qtrle", "argb", 1),
    "rgba.mov": ("png", "rgba", 1),
    "rgba64.mov": ("png", "rgba64be", 1),
    "yuva444p.mov": ("prores_ks", "yuva444p10le", 6),
    "vp9.webm": ("libvpx-vp9", "yuva420p", 3),
    "vp8.webm": ("libvpx", "yuva420p", 16),
}


@pytest.mark.parametrize("name", sorted(SEE_THROUGH))
def test_transparent_video_lies_over_white_as_pictures_do(tmp_path, name):
    codec, pixel_format, tolerance = SEE_THROUGH[name]
    path = write_layered(tmp_path / name, codec, pixel_format)
    batch = take(path)
    assert len(batch) == 4
    for frame in batch.pixels.astype(int):
        assert np.abs(frame[4:-4, 4:40] - 255).max() <= tolerance  # nothing: white, whatever is stored there
        assert np.abs(frame[4:24, 80:-4] - OVER).max() <= tolerance + 2
        third = np.round((np.array(OVER) * 85 + 255 * 170) / 255)
        assert np.abs(frame[40:-4, 56:-4] - third).max() <= tolerance + 2
    with WorkerSampler() as sampler:
        info = sampler.probe(str(path))
        plan = plan_frames(info.frame_times, SamplingRequest(num_frames=2), source=name)
        assert np.array_equal(sampler.decode(info, plan).pixels, batch.pixels[[0, 3]])


def test_transparent_parts_of_an_animated_png_are_white(tmp_path):
    pictures = [Image.fromarray(layered(number)) for number in range(3)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=100)
    batch = take(tmp_path / "a.png")
    assert len(batch) == 3
    assert (batch.pixels[:, :, :48] == 255).all()
    assert (batch.pixels[0, 4:24, 80:] == OVER).all()


def test_a_palette_with_a_transparent_colour_is_laid_over_white_and_one_without_any_alpha_is_solid():
    frame = av.VideoFrame(4, 2, "pal8")
    indices, palette = np.zeros((2, frame.planes[0].line_size), np.uint8), np.zeros((256, 4), np.uint8)
    indices[:, 1::2] = 1
    palette[1] = (30, 20, 10, 255)  # BGRA
    frame.planes[0].update(indices.tobytes())
    frame.planes[1].update(palette.tobytes())
    assert Converter(shape_of(frame), None)(frame)[0, :2].tolist() == [[255, 255, 255], [10, 20, 30]]
    palette[1, 3] = 0
    frame.planes[1].update(palette.tobytes())
    assert Converter(shape_of(frame), None)(frame)[0, :2].tolist() == [[0, 0, 0], [10, 20, 30]]


@pytest.mark.parametrize(("codec", "shown"), [("rawvideo", UNDER), ("ffv1", (255, 255, 255))])
def test_a_fourth_byte_that_is_0_throughout_is_padding_where_codecs_pad(codec, shown):
    picture = np.zeros((4, 4, 4), np.uint8)
    picture[..., :3] = UNDER
    frame = av.VideoFrame.from_ndarray(picture, format="rgba")
    assert Converter(shape_of(frame, codec=codec), None)(frame)[0, 0].tolist() == list(shown)


def shape_of(frame: av.VideoFrame, codec: str = "ffv1") -> VideoInfo:
    """A VideoInfo of no file: what a converter needs of one."""
    info = object.__new__(VideoInfo)
    for name, value in {
        "path": "clip", "codec": codec, "width": frame.width, "height": frame.height, "rotation": 0,
        "mirrored": False,
    }.items():  # fmt: skip
        object.__setattr__(info, name, value)
    return info


@pytest.mark.parametrize("pixel_format", ["rgba", "argb", "bgra", "abgr", "gbrap", "ya8"])
def test_every_level_over_white_is_the_nearest_one(pixel_format):
    """All 256 levels under all 256 alphas, against exact arithmetic."""
    level, alpha = np.meshgrid(np.arange(256), np.arange(256))
    picture = np.dstack([level, level, level, alpha]).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pixel_format)
    shown = Converter(shape_of(frame), None)(frame)
    expected = np.rint((level * alpha + 255.0 * (255 - alpha)) / 255)
    tolerance = 1 if pixel_format == "ya8" else 0  # grey goes through another range on its way
    assert np.abs(shown - expected[..., None]).max() <= tolerance


def test_transparency_that_no_decoder_reads_is_said(tmp_path, monkeypatch):
    path = write_layered(tmp_path / "a.webm", "libvpx-vp9", "yuva420p")
    monkeypatch.setattr(container_module, "_ALPHA_DECODERS", {"vp9": "no such decoder"})
    assert [note for note in probe(path).notes if "transparency is not read" in note]
    assert np.abs(take(path).pixels[0, 4:24, 4:40].astype(int) - UNDER).max() < 12


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", [1, 6])
def test_side_data_that_pyav_does_not_know_is_no_fault_of_ours(tmp_path, orientation):
    """FFmpeg hands out EXIF, which PyAV has no name for; what it has a name for is still read."""
    stored = [np.ascontiguousarray(np.rot90(numbered_picture(n), k=orientation == 6)) for n in range(3)]
    pictures = [Image.fromarray(each) for each in stored]
    pictures[0].save(
        tmp_path / "a.png",
        save_all=True,
        append_images=pictures[1:],
        duration=100,
        exif=exif_with(orientation),
    )
    with av.open(str(tmp_path / "a.png")) as container:
        frame = next(container.decode(video=0))
        with pytest.raises(ValueError, match="is not a valid Type"):
            frame.side_data.get("DISPLAYMATRIX")
        assert "DISPLAYMATRIX" in side_data(frame) or orientation == 1
    assert [read_number(picture) for picture in take(tmp_path / "a.png").pixels] == [0, 1, 2]


def test_motion_jpeg_whose_pictures_carry_exif_is_read(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for number in range(3):
            picture = tmp_path / f"{number}.jpg"
            Image.fromarray(numbered_picture(number)).save(picture, quality=95, exif=exif_with(1))
            packet = av.Packet(picture.read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            packet.is_keyframe = True
            container.mux(packet)
    assert [read_number(picture) for picture in take(tmp_path / "a.mkv").pixels] == [0, 1, 2]


def picture_of(pixel_format: str) -> av.VideoFrame:
    frame = av.VideoFrame(64, 48, pixel_format)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


@pytest.mark.parametrize("pixel_format", ["gray32le", "rgbaf32le", "yaf32le", "rgb4"])
def test_a_pixel_format_that_cannot_be_converted_is_one_line(pixel_format):
    frame = picture_of(pixel_format)
    with pytest.raises(MediaError, match=rf"cannot be converted to RGB \({pixel_format}\)"):
        Converter(shape_of(frame), None)(frame)


@pytest.mark.parametrize("field", ["colorspace", "color_range", "color_trc", "color_primaries"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuva420p", "bgra"])
def test_no_colour_tag_is_a_fault_of_ours(field, pixel_format):
    for value in (*range(24), 40, 255, 100_000):
        frame = picture_of(pixel_format)
        frame.color_trc = 16
        setattr(frame, field, value)
        assert Converter(shape_of(frame), None)(frame).shape == (48, 64, 3)


def test_seeks_use_the_decoder_that_reads_transparency(tmp_path, monkeypatch):
    """A planned pass and a sequential one give the same pixels."""
    path = write_layered(tmp_path / "a.webm", "libvpx-vp9", "yuva420p")
    planned = take(path)
    assert planned.method.startswith("decoded at most")

    def refuse(*_: object, **__: object) -> None:
        raise planned_reader.UnverifiedError("compared with")

    monkeypatch.setattr("vidllava.media.decoders.pyav.collect_planned", refuse)
    assert np.array_equal(take(path).pixels, planned.pixels)


def test_a_clip_without_alpha_is_not_slowed_or_changed(clip_of_numbers):
    with av.open(str(clip_of_numbers)) as container:
        plain = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(take(clip_of_numbers).pixels[0], plain)


@pytest.fixture
def clip_of_numbers(tmp_path) -> Path:
    return write_clip(tmp_path / "a.mp4", num_frames=3)
