"""Whether a file ends before the last of its parts does.

Each container is a row of parts that say how long they are (boxes, chunks, tags, packets, pages).
Where the end of a file is missing, its last part goes on beyond what is there. Parts of unknown
length, as live recordings have them, and bytes that are no part are no sign of it.

Sources: ISO 14496-12, section 4.2; Matroska (RFC 9559), section 4; OpenDML AVI 1.02; Adobe FLV
10.1, annex E; ISO 13818-1, sections 2.4.3 and 2.5.3; Ogg (RFC 3533), section 6; ASF 01.20.06,
section 3.
"""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# A file of more parts is taken as whole: the walk must end.
_MAX_PARTS = 2_000_000
_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"uuid"}
_BOXES |= {b"meta", b"mfra", b"emsg", b"prft", b"pnot", b"pdin"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_LONGEST_PAGE = 65307  # Bytes, of Ogg.


def is_cut_off(path: Path, demuxer: str) -> bool:
    """Whether the end is missing.

    Args:
        path: The file.
        demuxer: Its names, with commas between them.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for name in demuxer.split(","):
            if name in _ENDS:
                return _ENDS[name](file, size) > size
            if name in _PARTS:
                return _end_of_parts(file, size, *_PARTS[name]) > size
    return False


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _end_of_parts(file: BinaryIO, size: int, start: int, length_of: Callable[[bytes], int]) -> int:
    """Where the last part ends; 0 where that is not known.

    Args:
        file: The file.
        size: Its bytes.
        start: Where the first part begins.
        length_of: Bytes of a part by its first 16; 0 for an unknown number and for no part.
    """
    end = start
    for _ in range(_MAX_PARTS):
        if end >= size:
            return end
        length = length_of(_read(file, end, 16))
        if not length:
            return 0
        end += length
    return 0


def _length_of_box(head: bytes) -> int:
    if head[4:8] not in _BOXES:
        return 0
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:], "big")
    return length if length >= 8 else 0


def _length_of_chunk(head: bytes) -> int:
    length = int.from_bytes(head[4:8], "little")
    if not head.startswith(b"RIFF") or length == 0xFFFFFFFF:
        return 0
    # 8 more with these bytes, which some programs count in, however. So few at the end are no loss.
    return length


def _length_of_tag(head: bytes) -> int:
    if head[0] & 31 not in (8, 9, 18):
        return 0
    return 15 + int.from_bytes(head[1:4], "big")


def _length_of_packet(head: bytes) -> int:
    """Of MPEG-PS: a pack's header, or a packet."""
    if head[:3] != b"\0\0\1" or head[3:4] < b"\xba":
        return 0
    if head[3] != 0xBA:
        return 6 + int.from_bytes(head[4:6], "big")
    is_mpeg_2 = head[4:5] >= b"\x40"
    return 14 + (head[13] & 7 if len(head) > 13 else 0) if is_mpeg_2 else 12


def _end_of_transport_packets(file: BinaryIO, size: int) -> int:
    """Of MPEG-TS: 188 bytes each, with a time of 4 before or a checksum of 16 after them."""
    head = _read(file, 0, 3 * 204)
    for length, sync in ((188, 0), (192, 4), (204, 0)):
        if all(head[sync + i * length : sync + i * length + 1] == b"G" for i in range(3)):
            last = size // length * length
            return last + length if _read(file, last + sync, 1) == b"G" else 0
    return 0


def _end_of_segment(file: BinaryIO, _: int) -> int:
    """Of the one segment of a Matroska file."""
    head = _read(file, 0, 4096)
    if not head.startswith(_EBML):
        return 0
    length, start = _ebml_length(head, len(_EBML))
    start += length
    if not head.startswith(_SEGMENT, start):
        return 0
    length, start = _ebml_length(head, start + len(_SEGMENT))
    return start + length if length else 0


def _ebml_length(data: bytes, start: int) -> tuple[int, int]:
    """A length, 0 where it is unknown, and where it ends."""
    first = data[start] if start < len(data) else 0
    count = 9 - first.bit_length()
    unknown = (1 << 7 * count) - 1
    length = int.from_bytes(data[start : start + count], "big") & unknown
    return (0 if length == unknown else length), start + count


def _end_of_pages(file: BinaryIO, size: int) -> int:
    """Of the last Ogg page that begins in the file."""
    start = max(0, size - 2 * _LONGEST_PAGE)
    tail = _read(file, start, 2 * _LONGEST_PAGE)
    begin = tail.rfind(b"OggS\0")
    if begin < 0:
        return 0
    page = tail[begin:]
    num_segments = page[26] if len(page) > 26 else 0
    return start + begin + 27 + num_segments + sum(page[27 : 27 + num_segments])


def _end_of_asf(file: BinaryIO, _: int) -> int:
    """Of the header and the data; an index may follow."""
    head = _read(file, 0, 24)
    if not head.startswith(_ASF_HEADER):
        return 0
    header = int.from_bytes(head[16:], "little")
    data = int.from_bytes(_read(file, header + 16, 8), "little")
    # A broadcast cannot know how long it will be: its data are as long as their own head.
    return header + data if data > 50 else 0


_PARTS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "mov": (0, _length_of_box),
    "avi": (0, _length_of_chunk),
    "flv": (13, _length_of_tag),
    "live_flv": (13, _length_of_tag),
    "mpeg": (0, _length_of_packet),
}
_ENDS: dict[str, Callable[[BinaryIO, int], int]] = {
    "mpegts": _end_of_transport_packets,
    "matroska": _end_of_segment,
    "ogg": _end_of_pages,
    "asf": _end_of_asf,
}
