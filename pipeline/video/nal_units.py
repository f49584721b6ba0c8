"""Whether other frames refer to a frame, by the first bytes of its slices (H.264, HEVC)."""

from typing import Any, NamedTuple

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

_START = b"\0\0\1"
# A slice comes after a few units of other kinds; more are a stranger's joke.
_MAX_UNITS = 64
# H.264, table 7-1; HEVC (H.265), table 7-1: slices.
_H264_SLICES = range(1, 6)
_HEVC_SLICES = range(32)
# HEVC: TRAIL_N, TSA_N, STSA_N, RADL_N, RASL_N and what is reserved like them.
_HEVC_UNREFERENCED = range(0, 15, 2)


class PictureHeader(NamedTuple):
    """What a frame's first slice says.

    Attributes:
        is_reference: Whether frames of its layer may refer to it.
        layer: HEVC's temporal layer, from 0; frames of higher ones may refer to it as well.
    """

    is_reference: bool
    layer: int


def picture_header(packet: "Packet[Any]", codec: VideoCodecContext) -> PictureHeader | None:
    """Of a packet; None where the format does not say it, or the packet holds no slice."""
    if codec.name not in ("h264", "hevc"):
        return None
    data = memoryview(packet)
    length_bytes = _length_bytes(codec.name, codec.extradata or b"")
    start = length_bytes or _after_start_code(data, 0)
    for _ in range(_MAX_UNITS):
        if not 0 < start < len(data) - 1:
            break
        first, second = data[start], data[start + 1]
        if codec.name == "h264" and first & 31 in _H264_SLICES:
            return PictureHeader(first & 0x60 != 0, 0)
        if codec.name == "hevc" and first >> 1 in _HEVC_SLICES:
            # iPhones say it in the container only. A lie is found out: the decoder gives no frame
            # for one that refers to what it lacks.
            is_reference = first >> 1 not in _HEVC_UNREFERENCED and not packet.is_disposable
            return PictureHeader(is_reference, (second & 7) - 1)
        if length_bytes:
            size = int.from_bytes(data[start - length_bytes : start], "big")
            start += size + length_bytes
        else:
            start = _after_start_code(data, start)
    return None


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each unit; 0 where start codes part them (ISO 14496-15)."""
    if len(extradata) < (7 if codec == "h264" else 23):
        return 0
    if extradata.startswith((_START, b"\0" + _START)):
        return 0
    return (extradata[4 if codec == "h264" else 21] & 3) + 1


def _after_start_code(data: memoryview, start: int) -> int:
    found = bytes(data[start : start + 65536]).find(_START)
    return start + found + len(_START) if found >= 0 else -1
