"""How many frames the header of an MP4 or MOV file declares, told before a library believes it.

libav reserves memory for every sample that a header speaks of, also where a line of twelve bytes
speaks of ten million, so the tables that only count are read here first.

Source: ISO 14496-12, sections 4.2, 8.6 (stts, ctts, elst), 8.7 (stsz, stz2) and 8.8 (trun).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf")
# The walk must end, and what is read of a table have a limit.
_MAX_BOXES = 2_000_000
_MAX_DEPTH = 8
_MAX_TABLE_BYTES = 2**26


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
    tracks = [_Track()]
    with path.open("rb") as file:
        size = path.stat().st_size
        for box in _boxes(file, _Box(b"", 0, size), _MAX_DEPTH):
            if box.kind in (b"trak", b"traf"):
                tracks.append(_Track())
            else:
                tracks[-1].read(file, box)
    return sum(track.num_entries() for track in tracks)


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
