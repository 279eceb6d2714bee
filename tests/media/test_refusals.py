"""One line for everything that is not a video, before anything could hang on it or follow it elsewhere."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.clips import numbered_picture, write_clip
from vidllava.errors import MediaError, ResourceError
from vidllava.media import container as container_module
from vidllava.media import probe as probe_module
from vidllava.media.limits import Limits
from vidllava.media.picture import load_picture
from vidllava.media.probe import media_kind, probe


def error_of(path: Path | str) -> str:
    with pytest.raises(MediaError) as caught:
        probe(path)
    line = str(caught.value)
    assert line.isprintable()
    return line.removeprefix(f"{path}: ")


def test_sound_with_a_cover_picture_has_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as target:
        sound = target.add_stream("aac", rate=8000)
        sound.layout = "mono"
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 8000, 0
        target.mux(sound.encode(tone))
        target.mux(sound.encode(None))
        frame = av.VideoFrame.from_ndarray(numbered_picture(1, 64, 64), format="rgb24")
        target.mux(cover.encode(frame.reformat(format="yuvj420p")))
        target.mux(cover.encode(None))
    assert error_of(path).startswith("has no video stream: its only picture is cover art")


def test_a_frame_over_the_pixel_limit_is_refused_before_decoding(clip):
    with pytest.raises(ResourceError, match="128x96, over the limit of 12,287 pixels"):
        probe(clip("constant.mp4"), Limits(max_frame_pixels=128 * 96 - 1))


def test_paths_that_are_no_regular_file_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    os.symlink(tmp_path / "gone.mp4", tmp_path / "link.mp4")
    (tmp_path / "empty.mp4").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
        assert error_of(tmp_path / "s.mp4").startswith("is a socket, not a regular file")
    assert error_of(tmp_path / "fifo.mp4").startswith("is a FIFO, not a regular file")
    assert error_of(tmp_path).startswith("is a directory")
    assert error_of("/dev/null").startswith("is a device, not a regular file")
    assert error_of(tmp_path / "missing.mp4").startswith("no such file")
    assert error_of(tmp_path / "link.mp4").startswith("is a link to a file that does not exist")
    assert error_of(tmp_path / "empty.mp4").startswith("is empty (0 bytes)")
    assert error_of("http://127.0.0.1:9/clip.mp4").endswith("only local files are read; download it first)")
    assert "cannot be looked up: is not a file name" in error_of("clip.mp4\0")
    assert "cannot be looked up: file name too long" in error_of("x" * 5000)


IMPOSTORS = {
    "is an HTML page": b"<!DOCTYPE html><title>404</title>",
    "is a JSON text": b'{"error": 1}',
    "is a Git LFS pointer (run `git lfs pull`)": b"version https://git-lfs.github.com/spec/v1\noid",
    "is an HLS playlist": b"#EXTM3U\n#EXTINF:1,\nseg.ts\n",
    "is a concat list": b"ffconcat version 1.0\nfile seg.ts\n",
    "is an XML text": b"<?xml version='1.0'?><MPD/>",
    "is an SDP session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    "is a zip archive": b"PK\x03\x04" + bytes(range(200)),
    "is nothing but zero bytes": bytes(5000),
    "is a plain text": b"hello, this is not a video\n",
    "is a PLS playlist": b"[playlist]\nFile1=http://127.0.0.1/a.mp4\n",
    "is an ASX playlist": b"<ASX version='3'><Entry/></ASX>",
    "is a RAR archive": b"Rar!\x1a\x07\x01\x00" + bytes(50),
    "is PVA video, a format that is not accepted (convert it to mp4": b"AV\x01\x00\x55\x00\x00\x40"
    + bytes(90),
    "is RealMedia video, a format that is not accepted (convert it to mp4": b".RMF\x00\x00\x00\x12"
    + bytes(90),
    "is WTV (Windows Media Center) video, a format that is not accepted": bytes.fromhex(
        "b7d800203749da11a64e0007e95ead8d"
    )
    + bytes(90),
    "is AMV video, a format that is not accepted": b"RIFF\x00\x00\x00\x00AMV " + bytes(90),
    "is WAV sound without video": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(200),
    "is not a video file, or truncated": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("message", sorted(IMPOSTORS))
def test_a_file_that_is_something_else_is_named(tmp_path, message):
    path = tmp_path / "clip.mp4"
    path.write_bytes(IMPOSTORS[message])
    assert error_of(path).startswith(message)
    if "truncated" not in message:
        with pytest.raises(MediaError) as caught:
            media_kind(path)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "codec", "words"),
    [
        ("rm", "rv10", "is RealMedia video, a format that is not accepted (convert it to mp4"),
        ("wtv", "mpeg2video", "is WTV (Windows Media Center) video, a format that is not accepted"),
        ("nut", "mpeg4", "is NUT video, a format that is not accepted"),
        ("swf", "flv1", "is Flash (SWF) video, a format that is not accepted"),
        ("dv", "dvvideo", "is raw DV video, a format that is not accepted"),
        ("h261", "h261", "is in a media format that is not accepted (convert it to mp4"),
        ("dnxhd", "dnxhd", "is in a media format that is not accepted (convert it to mp4"),
    ],
)
def test_a_video_of_a_refused_format_is_not_called_damaged(tmp_path, suffix, codec, words):
    size = {"dv": (720, 576), "h261": (176, 144), "dnxhd": (1920, 1080)}.get(suffix, (128, 96))
    path = tmp_path / f"a.{suffix}"
    options = {"b": "36M"} if codec == "dnxhd" else {}
    write_clip(
        path,
        num_frames=12,
        fps=25,
        b_frames=0,
        codec=codec,
        width=size[0],
        height=size[1],
        pixel_format={"dnxhd": "yuv422p"}.get(codec),
        options=options,
    )
    path = path.rename(tmp_path / "clip.mp4")
    assert error_of(path).startswith(words)


@pytest.mark.parametrize("name", ["constant.mkv", "constant.avi", "constant.flv"])
def test_a_cut_header_of_an_accepted_container_is_called_damaged(clip, tmp_path, name):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(name).read_bytes()[:40])
    assert error_of(path).startswith(
        ("is truncated or damaged", "has no video stream", "holds no decodable frame")
    )


@pytest.mark.parametrize("name", ["WEBP", "AVIF"])
def test_animations_that_no_decoder_here_reads_are_refused_not_cut_to_a_frame(tmp_path, name):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(3)]
    pictures[0].save(tmp_path / "a", format=name, save_all=True, append_images=pictures[1:], duration=100)
    for read in (probe, media_kind, load_picture):
        with pytest.raises(MediaError, match=r"is an animated .* picture, which is not read"):
            read(tmp_path / "a")


def test_a_playlist_or_list_never_opens_its_neighbours(tmp_path, clip):
    (tmp_path / "seg.ts").write_bytes(clip("constant.ts").read_bytes())
    for text in ("ffconcat version 1.0\nfile seg.ts\n", "#EXTM3U\n#EXTINF:2,\nseg.ts\n#EXT-X-ENDLIST\n"):
        (tmp_path / "list.mp4").write_text(text)
        error_of(tmp_path / "list.mp4")
    assert error_of(f"concat:{tmp_path}/seg.ts|{tmp_path}/seg.ts").startswith("no such file")
    assert error_of(f"subfile,,start,0,end,0,,:{tmp_path}/seg.ts").startswith("no such file")


def test_both_whitelists_hold_on_their_own(tmp_path, clip):
    (tmp_path / "seg.ts").write_bytes(clip("constant.ts").read_bytes())
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile seg.ts\n")
    protocol, demuxer = f"concat:{tmp_path}/seg.ts|{tmp_path}/seg.ts", f"{tmp_path}/list.txt"
    for name in (protocol, demuxer):
        with av.open(name) as container:
            assert container.streams.video, "without the options FFmpeg follows it"
    for name, option in ((protocol, "protocol_whitelist"), (demuxer, "format_whitelist")):
        with pytest.raises(av.error.FFmpegError):
            av.open(name, options={option: container_module._OPTIONS[option]})


def test_a_name_that_looks_like_a_protocol_is_a_file(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("file:clip.mp4", "concat:a|b", "http:x.mp4"):
        Path(name).write_bytes(clip("constant.mp4").read_bytes())
        assert probe(name).num_frames == 60


def test_an_index_cut_off_is_said(clip, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip("constant.mp4").read_bytes()[:1000])
    assert error_of(path).startswith("is truncated or damaged: no readable index")


def test_a_header_without_pictures_is_no_video(clip, tmp_path):
    data = clip("constant.mp4").read_bytes()
    start = data.index(b"mdat") + 4
    path = tmp_path / "hollow.mp4"
    path.write_bytes(data[:start] + bytes(data.index(b"moov") - 4 - start) + data[data.index(b"moov") - 4 :])
    assert error_of(path).startswith("holds no decodable frame, though its header promises 60")


def test_an_unknown_codec_is_said(clip, tmp_path):
    path = tmp_path / "future.mp4"
    path.write_bytes(clip("constant.mp4").read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    assert error_of(path).startswith("has video of an unknown codec")


def test_an_encrypted_file_is_said(clip, tmp_path):
    path = tmp_path / "secret.mp4"
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with av.open(str(clip("constant.mp4"))) as source, av.open(str(path), "w", options=keys) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert error_of(path).startswith("is encrypted")


def test_an_encrypted_file_is_refused_even_where_a_picture_comes_out(clip, monkeypatch):
    """Out of random bits a decoder sometimes makes a grey frame."""
    found = probe_module.scan
    monkeypatch.setattr(
        probe_module, "scan", lambda *given, **bounds: replace(found(*given, **bounds), encrypted=True)
    )
    probe.__globals__["_probe"].cache_clear()
    assert error_of(clip("constant.mp4")).startswith("is encrypted")


def test_a_picture_under_a_videos_name_is_said_to_be_one(tmp_path):
    path = tmp_path / "clip.mp4"
    for name in ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF"):
        Image.fromarray(numbered_picture(3)).save(path, format=name)
        assert error_of(path).startswith(f"is a picture ({name}), not a video")
        assert media_kind(path) == "picture"
