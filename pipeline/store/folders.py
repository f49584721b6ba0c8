"""Folders of shards, on this machine's disks or on a host, and the clips in them."""

import re
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol

from pipeline.common.clips import StoredClip, read_stored
from pipeline.store.contents import CLIPS, ClipContent, Place, unpack


class Shards(Protocol):
    """A folder of shards and their manifest; `str` gives its path or address for messages."""

    def open(self, name: str) -> BufferedIOBase:
        """A small file of the folder, from its beginning.

        Raises:
            FileNotFoundError: There is none of that name.
        """

    def read(self, places: Iterable[Place]) -> Iterator[ClipContent]:
        """Clips, in that order.

        Raises:
            ValueError: A clip is not at its place.
        """


class LocalShards:
    """Shards in a folder of the file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def open(self, name: str) -> BufferedIOBase:
        """See `Shards`."""
        return (self.folder / name).open("rb")

    def read(self, places: Iterable[Place]) -> Iterator[ClipContent]:
        """See `Shards`; a clip is read when it is its turn."""
        for place in places:
            with (self.folder / place.shard).open("rb") as file:
                file.seek(place.first_byte)
                part = file.read(place.end - place.first_byte)
            yield unpack(part, place, self)


def open_shards(place: str) -> Shards:
    """The shards of a folder, or below an address such as https://host/folder.

    Nothing is read yet. Addresses are all that fsspec knows; see `RemoteShards`.
    """
    if "://" not in place:
        return LocalShards(Path(place))
    # fsspec is imported only where it is needed.
    from pipeline.common.hosts import RetryPolicy
    from pipeline.store.clip_cache import chosen_cache
    from pipeline.store.remote import RemoteShards

    return RemoteShards(place, chosen_cache(), RetryPolicy())


def read_clips(shards: Shards) -> list[StoredClip]:
    """The manifest of a folder of shards.

    Raises:
        ValueError: It is none, or names a place that cannot be in a shard of the folder.
    """
    with shards.open(CLIPS) as file:
        try:
            clips = read_stored(file)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{shards}/{CLIPS} is no manifest of shards: {error}") from error
    names = {clip.shard for clip in clips}
    strange = {name for name in names if not re.fullmatch(r"[\w-]+\.tar", name)}
    for clip in clips:
        if clip.shard in strange or not 0 <= clip.first_byte < clip.end:
            raise ValueError(
                f"{shards}/{CLIPS} says that {clip.clip} is in bytes {clip.first_byte} to "
                f"{clip.end} of {clip.shard!r}; expected a shard of that folder, such as "
                "000000.tar, and a place in it"
            )
    return clips


def read_contents(shards: Shards, clips: Iterable[StoredClip]) -> Iterator[ClipContent]:
    """Clips of the manifest, in that order.

    Raises:
        ValueError: One is not at its place.
    """
    return shards.read(map(Place.of, clips))
