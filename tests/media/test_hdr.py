"""HDR pictures come out as people would see them on an ordinary screen."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.clips import write_clip
from vidllava.media.decode import decode
from vidllava.media.hdr import WHITE_NITS, hdr_transfer, nits_to_pq, pq_to_nits, roll_off, to_sdr
from vidllava.media.pixels import resize_frames
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames


def coded(nits: float) -> np.ndarray:
    """One PQ pixel of neutral light."""
    return np.full((1, 1, 3), round(float(nits_to_pq(np.array(nits))) * 65535), np.uint16)


def srgb(share: float) -> float:
    """IEC 61966-2-1, as it is written there."""
    return 255 * (12.92 * share if share <= 0.0031308 else 1.055 * share ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("nits", "value"), [(0.0, 0.0), (100.0, 0.5081), (1000.0, 0.7518), (10_000.0, 1.0)])
def test_pq_has_the_values_of_its_standard(nits, value):
    assert float(nits_to_pq(np.array(nits))) == pytest.approx(value, abs=1e-4)
    assert float(pq_to_nits(np.array(nits_to_pq(np.array(nits))))) == pytest.approx(nits, abs=1e-6 * 1e4)


def test_shadows_and_skin_keep_their_light_and_only_highlights_are_rolled_off():
    dark = np.array([0.5, 5.0, 50.0, 80.0])
    assert roll_off(dark) == pytest.approx(dark, rel=1e-6)
    bright = roll_off(np.array([150.0, 203.0, 400.0, 1000.0, 4000.0]))
    assert np.all(np.diff(bright) >= 0)
    assert bright[-1] == bright[-2] == pytest.approx(WHITE_NITS, rel=1e-6)


@pytest.mark.parametrize("nits", [1.0, 10.0, 50.0, 80.0])
@pytest.mark.parametrize("wide", [True, False])
def test_neutral_light_stays_neutral_and_has_its_srgb_level(nits, wide):
    pixel = to_sdr(coded(nits), "PQ", wide=wide)[0, 0].astype(int)
    assert np.ptp(pixel) <= 1
    assert pixel == pytest.approx(srgb(nits / WHITE_NITS), abs=1.5)


def test_hlg_reference_white_is_nearly_white_and_black_is_black():
    # BT.2408: diffuse white is 75 % of the HLG signal and 203 cd/m2 on a 1000 cd/m2 display.
    white = to_sdr(np.full((1, 1, 3), round(0.75 * 65535), np.uint16), "HLG", wide=True)
    assert 215 <= white.min() <= white.max() <= 245
    assert to_sdr(np.zeros((1, 1, 3), np.uint16), "HLG", wide=True).max() == 0


def test_a_saturated_colour_of_the_wide_gamut_keeps_its_hue():
    red = np.array([[[0.6, 0.3, 0.3]]])
    out = to_sdr((red * 65535).astype(np.uint16), "PQ", wide=True)[0, 0].astype(int)
    assert out[0] > out[1] + 40
    assert out[0] > out[2] + 40


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_a_file_that_says_it_is_hdr_is_brightened_and_said(tmp_path, transfer):
    tags = f"log-level=none:pools=1:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = write_clip(
        tmp_path / "hdr.mp4",
        num_frames=6,
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": tags},
    )
    info = probe(path)
    assert any(note.startswith("HDR (") for note in info.notes)
    plan = plan_frames(info.frame_times, SamplingRequest(num_frames=2), source=str(path))
    with av.open(str(path)) as container:
        flat = next(container.decode(video=0)).to_ndarray(format="rgb24")
    shown = decode(info, plan).pixels[0]
    assert shown.shape == flat.shape
    assert shown.std() > 1.1 * flat.std()  # more contrast than the flat picture
    small = decode(info, plan, size=24).pixels
    assert np.array_equal(small, resize_frames(decode(info, plan).pixels, 24).permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(("transfer", "tag"), [("smpte2084", 16), ("arib-std-b67", 18)])
def test_eight_bits_are_never_taken_for_hdr(tmp_path, transfer, tag):
    """Neither said to be HDR nor brightened: the pixels are those of a plain conversion."""
    path = write_clip(
        tmp_path / "tagged.mp4",
        num_frames=3,
        options={"x264-params": f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"},
    )
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert int(frames[0].color_trc) == tag
        plain = [frame.to_ndarray(format="rgb24") for frame in frames]
    info = probe(path)
    assert not any("HDR" in note for note in info.notes)
    batch = decode(info, plan_frames(info.frame_times, SamplingRequest(), source=str(path)))
    assert np.array_equal(batch.pixels, plain)
    assert [hdr_transfer(tag, bits) for bits in (1, 8)] == [None, None]
    assert [hdr_transfer(tag, bits) for bits in (9, 10, 12, 16)] == [{16: "PQ", 18: "HLG"}[tag]] * 4
    assert hdr_transfer(1, 10) is None


# The whole way again in float64, from the standards alone, to hold every pixel against.

# Chromaticities of red, green, blue and white: ITU-R BT.2020-2, table 3; BT.709-6, item 1.
PRIMARIES_2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
PRIMARIES_709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
WHITE_D65 = (0.3127, 0.3290)


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """RGB to CIE XYZ for these primaries and D65 (SMPTE RP 177)."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (*primaries, WHITE_D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def pq_display_light(coded: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100-2, table 4 (SMPTE ST 2084): cd/m2 of each colour."""
    power = coded ** (32 / 2523)
    ratio = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
    return 10_000 * ratio ** (16384 / 2610)


def hlg_display_light(coded: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100-2, table 5: inverse OETF, then the OOTF of a display of 1000 cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return 1000 * luminance[..., None] ** 0.2 * scene


def pq_code(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** (2610 / 16384)
    return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def tone_mapped(nits: np.ndarray) -> np.ndarray:
    """ITU-R BT.2390-11, 5.4.1, of 1000 cd/m2 on 203, by the brightest colour of each pixel."""
    brightest = np.maximum(nits.max(-1, keepdims=True), 1e-6)
    source = pq_code(np.array(1000.0))
    most = pq_code(np.array(203.0)) / source
    e1 = np.minimum(pq_code(brightest) / source, 1)
    knee = 1.5 * most - 0.5
    t = (e1 - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
    spline = spline + (-2 * t**3 + 3 * t**2) * most
    e2 = np.where(e1 < knee, e1, spline)
    return nits * pq_display_light(e2 * source) / brightest


def expected_sdr(coded: np.ndarray, transfer: str, wide: bool) -> np.ndarray:
    """Levels of sRGB (IEC 61966-2-1), not rounded."""
    light = (pq_display_light if transfer == "PQ" else hlg_display_light)(coded / 65535)
    light = tone_mapped(light) / 203
    if wide:
        light = light @ (np.linalg.inv(to_xyz(PRIMARIES_709)) @ to_xyz(PRIMARIES_2020)).T
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def colours_of_every_kind() -> np.ndarray:
    """uint16 [1, N, 3]: greys, primaries and mixtures of every brightness, and colours at random."""
    levels = np.linspace(0, 65535, 65)
    greys = levels[:, None].repeat(3, 1)
    mixtures = np.array(list(np.ndindex(2, 2, 2)))[1:-1]
    saturated = (levels[:, None, None] * mixtures).reshape(-1, 3)
    soft = (levels[:, None, None] * (0.6 + 0.4 * mixtures)).reshape(-1, 3)
    drawn = np.random.default_rng(7).uniform(0, 65535, (3000, 3))
    return np.rint(np.concatenate([greys, saturated, soft, drawn])).astype(np.uint16)[None]


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
@pytest.mark.parametrize("wide", [True, False])
def test_every_colour_is_within_a_level_of_what_the_standards_give(transfer, wide):
    coded = colours_of_every_kind()
    found = to_sdr(coded, transfer, wide=wide).astype(np.float64)
    expected = expected_sdr(coded.astype(np.float64), transfer, wide)
    off = np.abs(found - expected).max(-1)[0]
    worst = int(off.argmax())
    assert off[worst] <= 1.0, (coded[0, worst], found[0, worst], expected[0, worst])


@pytest.mark.parametrize("name", ["PQ", "HLG"])
@pytest.mark.parametrize("primaries", ["bt2020", "bt709"])
def test_a_clip_is_converted_by_its_own_tags(tmp_path, name, primaries):
    """Flat fields of 10 bits through a file: the matrix, the range, the curve and the primaries it says."""
    path = tmp_path / "hdr.mkv"
    fields = [(0.2, 0.5, 0.5), (0.55, 0.45, 0.6), (0.7, 0.55, 0.4), (0.9, 0.5, 0.5)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p10le"
        codec = stream.codec_context
        codec.color_primaries, codec.color_trc = (
            {"bt2020": 9, "bt709": 1}[primaries],
            {"PQ": 16, "HLG": 18}[name],
        )
        codec.colorspace, codec.color_range = 9, 1
        for number, (luma, blue, red) in enumerate(fields):
            frame = av.VideoFrame(32, 32, "yuv444p10le")
            codes = (64 + 876 * luma, 512 + 896 * (blue - 0.5), 512 + 896 * (red - 0.5))
            for plane, code in zip(frame.planes, codes, strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(code), np.uint16).tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = probe(path)
    shown = decode(info, plan_frames(info.frame_times, SamplingRequest(), source=str(path))).pixels
    assert f"HDR ({name}): shown as SDR, highlights rolled off (BT.2390)" in info.notes
    for picture, (luma, blue, red) in zip(shown, fields, strict=True):
        # ITU-R BT.2020-2, table 4: non-constant luminance, on the codes as rounded to 10 bits.
        y = (round(64 + 876 * luma) - 64) / 876
        cb, cr = (round(512 + 896 * (blue - 0.5)) - 512) / 896, (round(512 + 896 * (red - 0.5)) - 512) / 896
        r, b = y + 1.4746 * cr, y + 1.8814 * cb
        g = (y - 0.2627 * r - 0.0593 * b) / 0.6780
        coded = np.clip(np.array([[[r, g, b]]]), 0, 1) * 65535
        expected = expected_sdr(coded, name, primaries == "bt2020")[0, 0]
        assert np.abs(picture[16, 16] - expected).max() <= 1.5  # swscale's own rounding comes on top
