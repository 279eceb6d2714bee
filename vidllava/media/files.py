"""Kind of a medium by its name, type, size and first bytes, before a decoder opens it.

A FIFO or a device blocks every media library for ever, so ``stat`` comes first. The first bytes tell a
picture from a video and name the usual impostors (an HTML page, a Git LFS pointer) for the error line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from vidllava.errors import MediaError
from vidllava.media.structure import is_motion_jpeg

PICTURE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
NUMBER = re.compile(r"(\d+)")
_HEAD_BYTES = 4096

_NOT_REGULAR: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a FIFO, not a regular file"),
    (stat.S_ISSOCK, "is a socket, not a regular file"),
    (stat.S_ISCHR, "is a device, not a regular file"),
    (stat.S_ISBLK, "is a device, not a regular file"),
)

# What the first bytes say about a file that is certainly no video: (start, what it is, what to try).
_IMPOSTORS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (b"<!doctype html", "an HTML page", "the download may have saved an error page"),
    (b"<html", "an HTML page", "the download may have saved an error page"),
    (b"<?xml", "an XML text", "give the media file itself"),
    (b"<mpd", "a DASH playlist", "playlists are not followed; give the media file itself"),
    (b"#extm3u", "an HLS playlist", "playlists are not followed; give the media file itself"),
    (b"ffconcat", "a concat list", "lists are not followed; give the media file itself"),
    (b"v=0", "an SDP session description", "streams are not followed; give the media file itself"),
    (b"<asx", "an ASX playlist", "playlists are not followed; give the media file itself"),
    (b"[playlist]", "a PLS playlist", "playlists are not followed; give the media file itself"),
    (b"[reference]", "an ASF reference list", "lists are not followed; give the media file itself"),
    (b"{", "a JSON text", "give the media file itself"),
    (b"[", "a JSON text", "give the media file itself"),
    (b"%pdf", "a PDF", "save its pages as pictures first"),
    (b"pk\x03\x04", "a zip archive", "unpack it first"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"rar!", "a RAR archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"bzh", "a bzip2 archive", "unpack it first"),
    (b"\xfd7zxz", "an xz archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
)
_SOUNDS: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "WAV"),
    (0, b"ID3", "MP3"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"fLaC", "FLAC"),
    (8, b"AIFF", "AIFF"),
    (0, b"#!AMR", "AMR"),
    (0, b"caff", "CAF"),
    (0, b"MThd", "MIDI"),
    (0, b"wvpk", "WavPack"),
)
# Video formats that FFmpeg may know, and whose parsers no file is handed to: (offset, bytes there, name).
_NOT_ACCEPTED: tuple[tuple[int, bytes, str], ...] = (
    (0, b".RMF", "RealMedia"),
    (0, b".R1M", "RealMedia recording (IVR)"),
    (0, bytes.fromhex("b7d800203749da11a64e0007e95ead8d"), "WTV (Windows Media Center)"),
    (0, b"nut/multimedia container", "NUT"),
    (0, b"NSVf", "NSV"),
    (0, b"NSVs", "NSV"),
    (0, b"\x1f\x07\x00", "raw DV"),
    (0, b"\0\0\0\0\x01\xbc", "GXF"),
    (0, b"LEITCH\0", "LXF"),
    (0, b"ARMovie", "RPL"),
    (0, b"SMK2", "Smacker"),
    (0, b"SMK4", "Smacker"),
    (0, b"BIK", "Bink"),
    (0, b"KB2", "Bink"),
    (8, b"4XMV", "4XM"),
    (8, b"AMV ", "AMV"),
    (0, b"YUV4MPEG2", "YUV4MPEG (y4m)"),
    (0, b"FWS", "Flash (SWF)"),
    (0, b"CWS", "Flash (SWF)"),
    (0, b"ZWS", "Flash (SWF)"),
    (0, b"\x84\x10\xff\xff\xff\xff", "RoQ"),
    (0, b"THP\0", "THP"),
    (0, b"NuppelVideo", "NuppelVideo"),
    (0, b"MythTVVideo", "NuppelVideo"),
    (0, b"DHAV", "Dahua (DHAV)"),
    (0, b"MLVI", "Magic Lantern (MLV)"),
    (0, b"\0\nSMJPEG", "SMJPEG"),
    (0, b"\xf5\x46\x7a\xbd", "TiVo"),
    (0, b"CRID", "USM"),
    (0, b"BBCD", "raw Dirac"),
    (0, b"\r\nVersion:Vivo", "Vivo"),
    (4, b"RED1", "R3D"),
    (4, b"RED2", "R3D"),
    (8, b"ANIM", "IFF animation"),
)
_CONVERT = "convert it to mp4, for example with ffmpeg"
# How the files of accepted containers begin: one that FFmpeg cannot open is damaged.
_ACCEPTED: tuple[tuple[int, bytes], ...] = (
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (4, b"ftyp"),
    (4, b"moov"),
    (8, b"AVI "),
    (0, b"OggS"),
    (0, b"FLV\x01"),
    (0, b"DKIF"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")),  # ASF
    (0, bytes.fromhex("060e2b34")),  # MXF
)
_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
)
_STILL_BRANDS = {
    b"avif": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"mif1": "HEIC",
}


def is_file_name(name: str) -> bool:
    """Whether a file could have this name: some characters, no NUL, none that the file system cannot hold."""
    try:
        return name != "" and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def check_file(path: str | Path) -> os.stat_result:
    """The ``stat`` of a regular, non-empty, readable file. Opens nothing; raises MediaError."""
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except FileNotFoundError:
        if os.path.islink(name):
            raise MediaError(
                name, "is a link to a file that does not exist", "give the file itself"
            ) from None
        hint = "only local files are read; download it first" if "://" in name else "check the path"
        raise MediaError(name, "no such file", hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not a file name"
        raise MediaError(name, f"cannot be looked up: {reason.lower()}", "check the path") from None
    for is_kind, what in _NOT_REGULAR:
        if is_kind(status.st_mode):
            raise MediaError(name, what, "give a video or picture file")
    if status.st_size == 0:
        raise MediaError(name, "is empty (0 bytes)", "copy or download it again")
    if not os.access(name, os.R_OK):
        raise MediaError(name, "cannot be read: permission denied", "chmod +r")
    return status


def absolute(path: str | Path) -> str:
    """The absolute path: the only form handed to a media library, which reads ``a:b`` as a protocol."""
    return os.path.abspath(os.fspath(path))


def read_head(path: str | Path) -> bytes:
    """The first bytes of a file that ``check_file`` passed. Raises MediaError where reading fails."""
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise MediaError(
            os.fspath(path), f"cannot be read: {error.strerror}", "copy it to another disk"
        ) from None


def impostor(head: bytes) -> tuple[str, str] | None:
    """(what it is, what to try) where the first bytes prove that a file is nothing that is read."""
    if not head.strip(b"\x00"):
        return "nothing but zero bytes", "copy or download it again"
    if head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & 2:
        return "an animated WebP picture, which is not read", "convert it to GIF or mp4"
    if head[4:12] == b"ftypavis":
        return "an animated AVIF picture, which is not read", "convert it to GIF or mp4"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, what, hint in _IMPOSTORS:
        if start.startswith(magic):
            return what, hint
    for offset, magic, what in _NOT_ACCEPTED:
        if head[offset : offset + len(magic)] == magic:
            return f"{what} video, a format that is not accepted", _CONVERT
    if head[:2] == b"AV" and head[4:5] == b"\x55":
        return "PVA video, a format that is not accepted", _CONVERT
    for offset, magic, what in _SOUNDS:
        if head[offset : offset + len(magic)] == magic:
            return f"{what} sound without video", "give a file with a video stream"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head[:512]):
        return "a plain text", "give the media file itself"
    return None


def is_accepted_container(head: bytes) -> bool:
    """Whether a file begins as those of a container that is read do; MPEG-TS and raw streams do not say."""
    return any(head[offset : offset + len(magic)] == magic for offset, magic in _ACCEPTED)


def picture_format(head: bytes) -> str | None:
    """The name of the picture format that the first bytes show, or None."""
    for magic, name in _PICTURES:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        still = _STILL_BRANDS.get(head[8:12])
        # "mif1" says no more than that it is a picture; the brands that follow say of which kind.
        brands = head[16 : int.from_bytes(head[:4], "big")]
        return "AVIF" if head[8:12] == b"mif1" and b"avif" in brands else still
    return None


def natural(name: str) -> tuple[object, ...]:
    """A key that sorts numbers by value: 2.png before 10.png."""
    parts = NUMBER.split(name)
    return (*(int(part) if odd % 2 else part for odd, part in enumerate(parts)), name)


def picture_names(folder: str) -> list[str]:
    """Names of the picture files of a folder, by their endings, in natural order. Raises OSError."""
    with os.scandir(folder) as listed:
        names = [each.name for each in listed if not each.name.startswith(".")]
    return sorted((one for one in names if os.path.splitext(one)[1].lower() in PICTURE_ENDINGS), key=natural)


def picture_paths(folder: str) -> list[str]:
    """Paths of the pictures of a folder. Raises MediaError where there are none."""
    try:
        names = picture_names(folder)
    except OSError as fault:
        raise MediaError(folder, f"cannot be listed: {fault.strerror}", "check its permissions") from None
    if not names:
        raise MediaError(folder, "is a directory without pictures", "give a video or picture file")
    return [os.path.join(folder, name) for name in names]


def media_kind(path: str | Path) -> Literal["video", "picture"]:
    """Which of the two a file is, by content and never by name.

    An animated GIF or PNG is a video, and so are JPEGs in a row (raw motion JPEG); one with a single frame is
    a picture. A folder of pictures counts as a video; so does a file of unknown kind, for ``probe`` to judge.
    Raises MediaError for a path that is not a readable file, and where the first bytes prove that the file is
    something else (a web page, an archive, a playlist).
    """
    if os.path.isdir(path):
        picture_paths(os.fspath(path))
        return "video"
    check_file(path)
    head = read_head(path)
    found = impostor(head)
    if found is not None:
        raise MediaError(os.fspath(path), f"is {found[0]}", found[1])
    name = picture_format(head)
    if name == "GIF":
        return "video" if _is_animated_gif(path) else "picture"
    if name == "PNG":
        return "video" if _is_animated_png(path) else "picture"
    if name == "JPEG":
        return "video" if is_motion_jpeg(path) else "picture"
    return "video" if name is None else "picture"


def _is_animated_gif(path: str | Path) -> bool:
    """True where a second image block follows the first (GIF89a, section 20: 0x2C starts an image)."""
    with open(path, "rb") as file:
        file.seek(10)
        _skip_colour_table(file)
        file.seek(2, os.SEEK_CUR)
        images = 0
        while block := file.read(1):
            if block == b",":
                images += 1
                if images == 2:
                    return True
                file.seek(8, os.SEEK_CUR)
                _skip_colour_table(file)
                file.seek(1, os.SEEK_CUR)
            elif block == b"!":
                file.seek(1, os.SEEK_CUR)
            else:
                return False
            while size := file.read(1):
                if size == b"\x00":
                    break
                file.seek(size[0], os.SEEK_CUR)
    return False


def _skip_colour_table(file: BinaryIO) -> None:
    """Read one packed-fields byte; skip the table it announces (3 bytes a colour)."""
    flags = file.read(1)
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), os.SEEK_CUR)


def _is_animated_png(path: str | Path) -> bool:
    """True where an ``acTL`` chunk of two frames or more stands before ``IDAT`` (PNG 3rd ed., 11.3.6.1)."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(chunk := file.read(8)) == 8:
            if chunk[4:] in (b"IDAT", b"IEND"):
                return False
            if chunk[4:] == b"acTL":
                return int.from_bytes(file.read(4), "big") > 1
            file.seek(int.from_bytes(chunk[:4], "big") + 4, os.SEEK_CUR)
    return False


def is_url(name: str) -> bool:
    """Whether ``name`` speaks of http or https."""
    return re.match(r"https?://", name, re.IGNORECASE) is not None


def shown_url(url: str) -> str:
    """The URL without what may be secret: user, password, query and fragment."""
    bare = re.sub(r"//[^/?#]*@", "//", url)
    path, mark, _ = re.sub(r"#.*", "", bare, flags=re.DOTALL).partition("?")
    return path + ("?..." if mark else "")
