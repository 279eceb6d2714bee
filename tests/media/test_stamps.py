"""Time stamps that are not what they should be, packets that hold nothing, and damage that nobody reports."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.packet import Packet

from tests.clips import read_number, write_clip
from tests.media.sequential import decode_everything
from tests.media.test_damage import take, with_broken_packets
from tests.media.test_media_folder import FOLDER
from vidllava.errors import MediaError, UsageError
from vidllava.media import reader
from vidllava.media import scan as scan_module
from vidllava.media.decode import decode
from vidllava.media.decoders import pyav
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames

CASES = FOLDER.parent / "cases"
Change = Callable[[int, Packet], None]


def remux(source: Path, target: Path, change: Change) -> Path:
    """A copy of a clip's packets, each changed first; stamps are counted from the first packet's dts."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        first = packets[0].dts
        for number, packet in enumerate(packets):
            packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, stream
            change(number, packet)
            new.mux(packet)
    return target


def of_decoding(_: int, packet: Packet) -> None:
    """What ``ffmpeg -bsf:v setts=pts=DTS`` makes of a packet."""
    packet.pts = packet.dts


@pytest.fixture(
    scope="module", params=["h264.mp4", "h264.mov", "h264.mkv", "h264.flv", "h264.ts", "mpeg4.mkv"]
)
def renamed(request, tmp_path_factory) -> Path:
    """A clip of 40 numbered frames with B pictures whose presentation stamps are those of decoding."""
    folder, codec = tmp_path_factory.mktemp("renamed"), request.param.split(".")[0]
    name = {"h264": "libx264"}.get(codec, codec)
    source = write_clip(folder / "source.mp4", num_frames=40, codec=name, b_frames=2)
    return remux(source, folder / request.param, of_decoding)


def test_stamps_of_decoding_name_no_frames_and_the_decoders_order_holds(renamed):
    info = probe(renamed)
    assert info.frame_ticks is None
    assert info.num_frames == 40
    assert "its time stamps are those of decoding: frames come in the order of the decoder" in info.notes
    assert np.diff(info.frame_times) == pytest.approx(np.full(39, 1 / 30), abs=1.1e-3)
    pictures, _ = decode_everything(renamed)
    for asked in ({}, {"num_frames": 7}, {"fps": 9}, {"start_seconds": 0.5, "end_seconds": 0.8}):
        batch = take(renamed, **asked)
        assert [read_number(picture) for picture in batch.pixels] == list(batch.plan.indices)
        assert np.array_equal(batch.pixels, [pictures[index] for index in batch.plan.indices])


def test_other_decoders_and_key_frames_are_not_trusted_with_stamps_of_decoding(renamed):
    info = probe(renamed)
    plan = plan_frames(info.frame_times, SamplingRequest(num_frames=7), source=str(renamed))
    if importlib.util.find_spec("decord") is not None:
        batch = decode(info, plan, backend="decord")
        assert [read_number(picture) for picture in batch.pixels] == list(plan.indices)
        assert batch.notes[0].startswith("decord was not used")
    keys = SamplingRequest(num_frames=7, keyframes="nearest")
    with pytest.raises(UsageError, match="can be decoded alone"):
        plan_frames(info.frame_times, keys, source=str(renamed), key_frames=info.key_frames)


@pytest.mark.parametrize("name", ["every_frame_a_key.mp4", "constant.mp4", "constant.mkv", "constant.ts"])
def test_stamps_of_presentation_stay_names(clip, name):
    assert probe(clip(name)).frame_ticks is not None


def test_rising_stamps_are_names_where_nothing_is_reordered_although_it_might_be(tmp_path):
    """The stream says that pictures may be reordered, and has none that are."""
    path = write_clip(tmp_path / "clip.mp4", num_frames=30, codec="mpeg2video", b_frames=0)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.has_b_frames
    info = probe(path)
    assert info.frame_ticks is not None
    assert (info.notes, info.sequential_because) == ((), "")


def test_one_repeated_stamp_leaves_all_others_as_they_are(clip, tmp_path):
    """29 frames in 9 s, at 10 a second for 2 s and one a second after; two of them are stamped 7 s."""
    times = [*range(0, 2001, 100), *range(3000, 9001, 1000)]
    times.insert(times.index(7000), 7000)
    plain = write_clip(tmp_path / "plain.mkv", num_frames=len(times), gop=1, b_frames=0)

    def restamp(number: int, packet: Packet) -> None:
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = times[number]
        packet.duration = 33

    path = remux(plain, tmp_path / "twice.mkv", restamp)
    info = probe(path)
    assert info.frame_times == pytest.approx(np.array(times) / 1000)
    assert info.duration_seconds == pytest.approx(9.033, abs=2e-3)
    assert "1 of 29 frames repeat another's time stamp: they keep it" in info.notes
    batch = take(path, start_seconds=6, end_seconds=9)
    assert batch.timestamps_seconds == pytest.approx([6, 7, 7, 8])
    assert [read_number(picture) for picture in batch.pixels] == [24, 25, 26, 27] == list(batch.plan.indices)
    assert [read_number(p) for p in take(path, fps=1).pixels] == [0, 10, 20, 21, 22, 23, 24, 26, 27, 28]


ONE, TWO = (f"{n} of 4 frames have no time stamp: their times are interpolated" for n in (1, 2))


@pytest.mark.parametrize(
    ("stamps", "times", "notes"),
    [
        ([0, 10, 20, 30], [0, 1, 2, 3], ()),
        ([5, 25, 15, 35], [0, 1, 2, 3], ()),  # only the stamps are out of order
        ([0, 10, 10, 30], [0, 1, 1, 3], ("1 of 4 frames repeat another's time stamp: they keep it",)),
        ([0, None, 20, 60], [0, 1, 2, 6], (ONE,)),
        ([None, 10, 20, 30], [0, 1, 2, 3], (ONE,)),
        ([0, 10, None, None], [0, 1, 2, 3], (TWO,)),
        ([0, None, 0, 10, 20], [0, 0, 0, 1, 2], None),
        ([7], [0], ()),
        ([0, None, None, None, 40], None, ()),
        ([0, 0, 0, 10, 10], None, ()),
        ([None, None], None, ()),
        ([0, 0], None, ()),
    ],
)  # fmt: skip
def test_missing_and_repeated_stamps_are_mended_where_they_are(stamps, times, notes):
    found, said = scan_module.times_from_stamps(stamps, Fraction(1, 10))
    if times is None:
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == pytest.approx(times)
    assert notes is None or said == notes


@pytest.fixture(params=["wmv2.wmv", "mpeg4.mkv"])
def with_empty_packets(request, tmp_path, monkeypatch) -> Path:
    """Ten frames, an empty packet after each: as Theora has them, in codecs that can be written here.

    Frame threads delay the second, as they do Theora.
    """
    codec = request.param.split(".")[0]
    path = write_clip(tmp_path / request.param, num_frames=10, fps=10, codec=codec, b_frames=0)
    read = reader.read_packets

    def read_more(container, stream, damage) -> Iterator[Packet]:
        for packet in read(container, stream, damage):
            yield packet
            if packet.size:
                empty = Packet()
                empty.stream, empty.time_base = packet.stream, packet.time_base
                empty.pts = empty.dts = packet.pts + 50
                yield empty

    for module in (reader, scan_module):
        monkeypatch.setattr(module, "read_packets", read_more)
    probe.__globals__["_probe"].cache_clear()
    return path


def test_an_empty_packet_of_a_codec_that_means_it_shows_the_last_picture_again(
    with_empty_packets, monkeypatch
):
    for module in (reader, scan_module):
        monkeypatch.setattr(module, "REPEATING_CODECS", ("wmv2", "mpeg4"))
    monkeypatch.setattr(reader, "num_threads", lambda: 4)
    info = probe(with_empty_packets)
    assert (info.num_frames, info.notes) == (20, ())
    assert np.diff(info.frame_times) == pytest.approx(np.full(19, 0.05))
    batch = take(with_empty_packets)
    assert batch.notes == ()
    assert [read_number(picture) for picture in batch.pixels] == [index // 2 for index in range(20)]
    frames = reader.read_frames(str(with_empty_packets), 0, 4, reader.Damage())
    numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in frames]
    assert numbers == [index // 2 for index in range(20)]


def test_an_empty_packet_of_any_other_codec_is_no_frame_and_no_damage(with_empty_packets):
    info = probe(with_empty_packets)
    assert (info.num_frames, info.notes) == (10, ())
    batch = take(with_empty_packets)
    assert batch.notes == ()
    assert [read_number(picture) for picture in batch.pixels] == list(range(10))


@pytest.mark.skipif(not CASES.is_dir(), reason="no folder of cases beside the checkout")
def test_theora_of_still_parts_is_read():
    batch = take(CASES / "m04_empty_packets_theora" / "x.ogv", num_frames=6)
    assert batch.timestamps_seconds == pytest.approx(range(6))
    assert batch.notes == ()
    assert len({picture.mean(axis=(0, 1)).tobytes() for picture in batch.pixels}) == 6


def test_the_packet_that_is_shown_last_says_how_long_wherever_it_stands(clip, monkeypatch):
    """B pictures stand after the picture that they lead to: the file's last packet is not the last shown."""
    path, read = clip("one_key.mp4"), scan_module.read_packets
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
        time_base = container.streams.video[0].time_base
    assert stamps[-1] != max(stamps)

    def read_longer(container, stream, damage) -> Iterator[Packet]:
        for packet in read(container, stream, damage):
            packet.duration = 2000 if packet.pts == max(stamps) else 1
            yield packet

    monkeypatch.setattr(scan_module, "read_packets", read_longer)
    probe.__globals__["_probe"].cache_clear()
    info = probe(path)
    probe.__globals__["_probe"].cache_clear()
    assert info.duration_seconds - info.frame_times[-1] == pytest.approx(2000 * float(time_base))


def test_one_encrypted_packet_in_the_middle_is_enough(clip, tmp_path, monkeypatch):
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    path, secret = clip("constant.mp4"), tmp_path / "secret.mp4"
    with av.open(str(path)) as source, av.open(str(secret), "w", options=keys) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(secret)) as container:
        beside = next(container.demux(video=0)).get_sidedata("encryption_info")
    read = scan_module.read_packets

    def read_some(container, stream, damage) -> Iterator[Packet]:
        for number, packet in enumerate(read(container, stream, damage)):
            if number == 30:
                packet.set_sidedata(beside)
            yield packet

    monkeypatch.setattr(scan_module, "read_packets", read_some)
    probe.__globals__["_probe"].cache_clear()
    with pytest.raises(MediaError, match="is encrypted"):
        probe(path)


@pytest.mark.parametrize(
    ("of_file", "of_stream", "tag", "encrypted"),
    [
        ({}, {}, "avc1", False),
        ({"title": "a film about encryption"}, {}, "avc1", False),
        ({"encryption": "ASF Extended Content Encryption"}, {}, "WMV3", True),
        ({"ASF_Protection_Type": "DRM"}, {}, "WMV3", True),
        ({}, {"enc_key_id": "AAAA"}, "", True),
        ({}, {}, "encv", True),
        ({}, {}, "drmi", True),
    ],
)
def test_a_header_that_says_encrypted_is_believed(of_file, of_stream, tag, encrypted):
    container = SimpleNamespace(metadata=of_file)
    stream = SimpleNamespace(metadata=of_stream, codec_context=SimpleNamespace(codec_tag=tag))
    assert scan_module._says_encrypted(container, stream) is encrypted


def refusal(path: Path, **asked: object) -> str:
    with pytest.raises(MediaError) as caught:
        take(path, **asked)
    return str(caught.value)


def test_a_mostly_undecodable_file_is_refused_for_every_count(clip, tmp_path):
    broken = [number for number in range(1, 60) if number % 4]
    path = with_broken_packets(clip("every_frame_a_key.mp4"), tmp_path / "hole.mp4", broken)
    told = {refusal(path, num_frames=count) for count in (1, 8, 32)}
    assert told == {
        f"{path}: is damaged: 45 of 60 frames cannot be decoded, over the limit of 10% "
        "(copy or download it again)"
    }


def test_damage_that_a_few_frames_meet_is_held_against_the_whole_file(clip, tmp_path):
    path = with_broken_packets(clip("one_key.mp4"), tmp_path / "hole.mp4", range(20, 60, 4))
    few = refusal(path, start_seconds=18 / 30, end_seconds=23 / 30, num_frames=4)
    assert few == refusal(path, num_frames=32)
    assert "is damaged: 10 of" in few


@pytest.mark.parametrize("number", [20, 31, 44])
def test_half_a_packet_of_hevc_looks_the_same_on_any_number_of_threads_and_is_said(
    clip, tmp_path, monkeypatch, number
):
    """Its decoder reports nothing, and frame threads would race for what is left."""
    path = with_broken_packets(clip("open_gop_hevc.mp4"), tmp_path / "half.mp4", [number], 0.6)
    found = []
    for threads in (1, 4):
        monkeypatch.setattr("vidllava.media.reader.num_threads", lambda threads=threads: threads)
        monkeypatch.setattr("vidllava.media.planned_reader.num_threads", lambda threads=threads: threads)
        found.append(take(path))
    assert np.array_equal(found[0].pixels, found[1].pixels)
    assert found[0].notes == found[1].notes
    assert any(note.startswith("damaged") for note in found[0].notes)


@pytest.mark.parametrize(
    ("name", "broken", "threads"),
    [
        ("constant.mp4", [], None),
        ("constant.avi", [], 1),  # numbered frames must be those that the probe counted
        ("vp8.webm", [], 1),  # no check sums: frame threads would show other remains without an error
        ("constant.mp4", [31], 1),
        ("open_gop_hevc.mp4", [31], 1),
    ],
)
def test_where_damage_may_stay_unsaid_one_thread_decodes(clip, tmp_path, monkeypatch, name, broken, threads):
    path = with_broken_packets(clip(name), tmp_path / name, broken)
    walk, asked = pyav.walk, []

    def noted(*given, max_threads, **named):
        asked.append(max_threads)
        return walk(*given, max_threads=max_threads, **named)

    monkeypatch.setattr(pyav, "walk", noted)
    if not broken:

        def refuse(*_: object) -> None:
            raise pyav.UnverifiedError("a test")

        monkeypatch.setattr(pyav, "collect_planned", refuse)
    take(path)
    assert asked[0] == threads
    assert set(asked[1:]) <= {1}  # stand-ins
