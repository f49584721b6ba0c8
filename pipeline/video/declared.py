"""How many frames the header of an MP4 or MOV file declares, told before a library believes it.

libav reserves memory for every sample that a header speaks of, also where a line of twelve bytes
speaks of ten million, so the tables that only count are read here first.

Source: ISO 14496-12, sections 4.2, 8.6 (stts, ctts, elst), 8.7 (stsz, stz2) and 8.8 (trun);
QuickTime File Format, compressed movie resources (cmov, dcom, cmvd).
"""

import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"cmov")
# The walk must end, and what is read of a table have a limit.
_MAX_BOXES = 2_000_000
_MAX_DEPTH = 8
_MAX_TABLE_BYTES = 2**26
# A header that is longer when it is inflated counts as one of so many samples.
_MAX_HEADER_BYTES = 2**26
_TOO_MANY = 2**32


class _Box(NamedTuple):
    kind: bytes
    start: int  # Of its content.
    end: int


class _Track:
    """What the tables of one track say of it."""

    def __init__(self) -> None:
        self.num_samples = self.num_timed = self.num_edits = 0
        # Of raw sound libav counts pieces, not samples, of which there are 48,000 a second.
        self.is_sound = self.is_raw = False

    def read(self, file: BinaryIO, box: _Box) -> None:
        content = _content(file, box, 12)
        numbers = [int.from_bytes(content[i : i + 4], "big") for i in (0, 4, 8)]
        if box.kind == b"hdlr":
            # A second one in the same track says where the media is.
            self.is_sound |= content[8:12] == b"soun"
        elif box.kind in (b"stsz", b"stz2"):
            self.num_samples += numbers[2]
        elif box.kind == b"elst":
            self.num_edits += numbers[1]
        elif box.kind == b"trun":
            self.num_samples += numbers[1]
        elif box.kind in (b"stts", b"ctts"):
            pairs = _pairs(_content(file, box, 8 + _MAX_TABLE_BYTES)[8:])
            self.num_timed = max(self.num_timed, int(pairs[:, 0].sum()))
            self.is_raw |= box.kind == b"stts" and pairs[:, 1].tolist() == [1]

    def num_entries(self) -> int:
        """Of libav's index: an edit may show every sample again."""
        if self.is_sound and self.is_raw:
            return 0
        return max(self.num_samples, self.num_timed) * max(1, self.num_edits)


def num_declared(path: Path) -> int:
    """Samples of all tracks that the header declares; 0 for a file of another kind."""
    with path.open("rb") as file:
        return _num_entries(file, path.stat().st_size)


def _num_entries(file: BinaryIO, size: int, is_inflated: bool = False) -> int:
    tracks = [_Track()]
    num_compressed = 0
    for box in _boxes(file, _Box(b"", 0, size), _MAX_DEPTH):
        if box.kind in (b"trak", b"traf"):
            tracks.append(_Track())
        elif box.kind == b"cmvd":
            # No program writes a compressed header into another one.
            num_compressed += _TOO_MANY if is_inflated else _num_inflated(file, box)
        else:
            tracks[-1].read(file, box)
    return num_compressed + sum(track.num_entries() for track in tracks)


def _num_inflated(file: BinaryIO, box: _Box) -> int:
    """Samples that a compressed header declares."""
    # Before the data stands their length when they are inflated.
    content = _content(file, box, _MAX_HEADER_BYTES)[4:]
    try:
        header = zlib.decompressobj().decompress(content, _MAX_HEADER_BYTES)
    except zlib.error:
        return 0  # Nor can libav read it.
    if len(header) == _MAX_HEADER_BYTES:
        return _TOO_MANY
    return _num_entries(BytesIO(header), len(header), is_inflated=True)


def _boxes(file: BinaryIO, parent: _Box, depth: int) -> Iterator[_Box]:
    """The boxes in a box, a container before what it holds."""
    position = parent.start
    for _ in range(_MAX_BOXES):
        if position >= parent.end:
            return
        head = _content(file, _Box(b"", position, parent.end), 16)
        if len(head) < 8:
            return
        length, start = int.from_bytes(head[:4], "big"), position + 8
        if length == 1:
            length, start = int.from_bytes(head[8:], "big"), position + 16
        end = parent.end if length == 0 else position + length
        if end < start:
            return
        box = _Box(head[4:8], start, min(end, parent.end))
        yield box
        if box.kind in _CONTAINERS and depth:
            yield from _boxes(file, box, depth - 1)
        position = end


def _content(file: BinaryIO, box: _Box, max_bytes: int) -> bytes:
    file.seek(box.start)
    return file.read(max(0, min(max_bytes, box.end - box.start)))


def _pairs(content: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Rows of a count and what it counts."""
    whole = content[: len(content) // 8 * 8]
    return np.frombuffer(whole, ">u4").reshape(-1, 2).astype(np.int64)
