"""Real files, where a folder of them lies beside the checkout: the right frames, or one line, quickly.

The folder is VIDLLAVA_TEST_MEDIA, else ../shared/media from the repository's root; without it, skipped.
Long and large files are decoded only where the variable is set: they take minutes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import av
import numpy as np
import pytest

from vidllava.errors import VidllavaError
from vidllava.media.decode import decode
from vidllava.media.picture import load_picture
from vidllava.media.probe import media_kind, probe
from vidllava.media.timeline import SamplingRequest, plan_frames

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("VIDLLAVA_TEST_MEDIA") or ROOT.parent / "shared" / "media")
FILES = sorted(p for p in FOLDER.rglob("*") if p.is_file() and p.suffix != ".tsv") if FOLDER.is_dir() else []

# Refused, each for its own reason; everything else in the folder must be read.
REFUSED = {
    **dict.fromkeys(["broken_0frames.gif"], "is a truncated or damaged GIF picture"),
    **dict.fromkeys(
        ["broken_vp9_bitstream.webm", "broken_init_segment_only.mp4"], "holds no decodable frame"
    ),
    **dict.fromkeys(
        ["broken_1185230.mp4", "broken_header_only_moov.mp4"], "holds no decodable frame, though"
    ),
    **dict.fromkeys(["broken_chunk_out_of_range.mp4", "broken_text_named.mp4"], "is truncated or damaged"),
    "broken_corrupt.mkv": "is truncated or damaged: no readable header",
    "random.mp4": "is not a video file, or truncated",
    **dict.fromkeys(["broken_ftyp_only.mp4", "stream_audio_long_editlist.mp4"], "has no video stream"),
    **dict.fromkeys(["stream_audio_only.mp4", "stream_audio_only.m4a"], "has no video stream"),
    "stream_audio_only.wav": "is WAV sound without video",
    "stream_mp3_cover_art.mp3": "is MP3 sound without video",
    "image_bomb.ico": "is an ICO picture, a format that is not read",
    "image_truncated.png": "is a truncated or damaged PNG picture",
    "image_sigsegv.png": "is a truncated or damaged PNG picture",
    "concat_as.mp4": "is a concat list",
    "dash_as.mp4": "is an XML text",
    "empty.mp4": "is empty (0 bytes)",
    "html.mp4": "is an HTML page",
    "json.mp4": "is a JSON text",
    "lfs.mp4": "is a Git LFS pointer",
    **dict.fromkeys(["playlist.m3u8", "playlist_as.mp4"], "is an HLS playlist"),
    **dict.fromkeys(["playlist_http.m3u8", "playlist_http_as.mp4"], "is an HLS playlist"),
    "sdp_as.mp4": "is an SDP session description",
    "trunc1k.mp4": "is truncated or damaged",
    "new_wmv_drm.wmv": "is encrypted",
}
DAMAGED = {
    "broken_corrupted.mp4",
    "broken_invalid_nalu.mp4",
    "broken_no_timescale.mp4",
    "new_two_first_slice.mp4",
}
MAX_PIXELS = float("inf") if "VIDLLAVA_TEST_MEDIA" in os.environ else 65e6
# Keeping every frame of a file for the comparison takes three bytes a pixel.
MAX_COMPARED_PIXELS = 300e6

pytestmark = pytest.mark.skipif(not FILES, reason="no folder of real media beside the checkout")


def read(path: Path):
    """What the sampler makes of a file: a picture, or (info, batch of 8)."""
    if media_kind(path) == "picture":
        return load_picture(path)
    info = probe(path)
    if info.num_frames * info.width * info.height > MAX_PIXELS:
        return info, None
    compared = info.num_frames * info.width * info.height <= MAX_COMPARED_PIXELS
    size = 64 if info.width * info.height > 10e6 and not compared else None
    plan = plan_frames(info.frame_times, SamplingRequest(num_frames=8), source=str(path))
    return info, decode(info, plan, size=size)


@pytest.mark.parametrize("path", [p for p in FILES if p.name in REFUSED], ids=lambda path: path.name)
def test_what_cannot_be_used_is_one_line_at_once(path):
    start = time.perf_counter()
    with pytest.raises(VidllavaError) as caught:
        read(path)
    assert str(caught.value).removeprefix(f"{path}: ").startswith(REFUSED[path.name])
    assert str(caught.value).isprintable()
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("path", [p for p in FILES if p.name not in REFUSED], ids=lambda path: path.name)
def test_everything_else_is_read_and_equals_a_sequential_decode(path):
    found = read(path)
    if isinstance(found, np.ndarray):
        assert found.ndim == 3
        return
    info, batch = found
    if batch is None or info.num_frames * info.width * info.height > MAX_COMPARED_PIXELS:
        return
    if path.name in DAMAGED:
        past_it = batch.method.startswith("decoded at most")
        assert past_it or any(note.startswith("damaged") for note in batch.notes)
        return
    assert batch.notes == ()
    is_hdr = any(note.startswith("HDR") for note in info.notes)
    with av.open(str(path), metadata_errors="replace") as container:
        decoded = list(container.decode(container.streams[info.stream_index]))
        assert len(decoded) == info.num_frames
        for index, seconds, picture in zip(
            batch.plan.indices, batch.timestamps_seconds, batch.pixels, strict=True
        ):
            frame = decoded[index]
            upright = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
            # HDR pictures are brought to an ordinary screen (tests/media/test_hdr.py).
            assert is_hdr or np.array_equal(picture, upright)
            if info.frame_ticks is not None:
                assert seconds == pytest.approx(float((frame.pts - decoded[0].pts) * frame.time_base))
