"""RAVDESS: where it is, what a file name says, what is missing of it.

A name is modality-channel-emotion-intensity-statement-repetition-actor, two digits each:
`02-01-06-01-02-01-12.mp4` is video only, speech, fearful, normal intensity, "dogs", first
repetition, actor 12. The embedded `sample` set names its clips the same way.

Source: Livingstone and Russo 2018, the data set's own description (Zenodo record 1188976).
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from pipeline.acquire.archives import is_whole, unpack
from pipeline.acquire.download import check_space, download
from pipeline.acquire.http import DownloadFailed, get_json, open_session
from pipeline.common.clips import Clip
from pipeline.common.hosts import RetryPolicy
from pipeline.common.params import Section
from pipeline.common.sources import Videos, is_hidden, videos_folder

RECORD = "1188976"
NUM_ACTORS = 24
CLIPS_PER_ACTOR = 60

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprised",
}
_NAME = re.compile(r"(01|02|03)-(01|02)-(0[1-8])-(01|02)-(01|02)-(01|02)-(\d\d)")
_ARCHIVE = re.compile(r"Video_Speech_Actor_(\d\d)\.zip")
# An actor's archive has 0.6 GB in 120 files; sizes far beyond that are no RAVDESS.
_MAX_UNPACKED = 8 * 2**30


class Settings(Section):
    """An existing copy, or the host to download from."""

    classes: list[str]
    source: Path | None
    address: str
    accept_licence: bool


class Archive(NamedTuple):
    """A published archive of an actor: its name, MD5 in hexadecimal and size in bytes."""

    name: str
    md5: str
    size: int

    @property
    def folder(self) -> str:
        """Where its clips go: `Actor_01` and so on."""
        match = _ARCHIVE.fullmatch(self.name)
        if not match:
            raise ValueError(f"{self.name} is no name of an actor's archive")
        return f"Actor_{match[1]}"


class _Links(BaseModel):
    address: str = Field(alias="self")


class _File(BaseModel):
    key: str
    size: int
    checksum: str
    links: _Links


class _Record(BaseModel):
    """What is read of a Zenodo record."""

    files: list[_File]


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """The video-only speech clips of an existing copy or, where there is none, of a download."""
    videos = videos_folder(settings.source, "ravdess")
    if not settings.source:
        fetch(settings.address, read_archives(tables / "files.csv"), videos, RetryPolicy())
    clips = find_clips(videos, settings.classes)
    return Videos(clips, [videos], what_is_missing(clips))


def read_archives(table: Path) -> list[Archive]:
    """The published archives, out of `files.csv`."""
    rows = pd.read_csv(table, dtype={"name": "string", "md5": "string", "size": "int64"})
    return [Archive(*row) for row in rows.itertuples(index=False, name=None)]


def parse_name(path: str, classes: list[str]) -> Clip:
    """The clip that a RAVDESS file name describes; odd actors are male, even ones female.

    Where `calm` is not one of the classes it counts as neutral: the 7-class protocol of
    MTCAE-DFER.

    Raises:
        ValueError: The name does not follow the scheme.
    """
    stem = Path(path).stem
    match = _NAME.fullmatch(stem)
    if not match:
        raise ValueError(
            f"{path}: not a RAVDESS name (seven two-digit fields, such as 02-01-06-01-02-01-12)"
        )
    label, actor = EMOTIONS[match[3]], match[7]
    if label == "calm" and "calm" not in classes:
        label = "neutral"
    return Clip(
        clip=stem,
        path=path,
        subject=f"actor_{actor}",
        label=label,
        sex="male" if int(actor) % 2 else "female",
    )


def is_wanted(name: str) -> bool:
    """Whether a file is a video-only speech clip.

    The audio-visual files (`01-...`) are the same pictures with sound: with both in one set, a clip
    could be trained and tested on. Songs are not part of the protocol.
    """
    match = _NAME.fullmatch(Path(name).stem)
    return (
        match is not None and Path(name).suffix == ".mp4" and match[1] == "02" and match[2] == "01"
    )


def find_clips(folder: Path, classes: list[str]) -> list[Clip]:
    """The video-only speech clips anywhere below a folder, in the order of their names.

    Raises:
        ValueError: There is none, or one of them is there twice.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.mp4")):
        # An unpacking that was killed leaves hidden folders.
        if is_wanted(path.name) and not is_hidden(path.relative_to(folder)):
            if path.name in files:
                raise ValueError(f"{path.name} is below {folder} twice; keep one copy")
            files[path.name] = path
    if not files:
        raise ValueError(
            f"no video-only speech clip (02-01-*.mp4) below {folder}; it should hold the folders "
            "Actor_01 to Actor_24 of the unpacked Video_Speech archives"
        )
    return [
        parse_name(path.relative_to(folder).as_posix(), classes)
        for _, path in sorted(files.items())
    ]


def fetch(address: str, archives: Sequence[Archive], folder: Path, policy: RetryPolicy) -> None:
    """Download and unpack the actors that are not in the folder yet, one archive after the other.

    An archive is checked against its MD5, and deleted once its video-only clips are unpacked.

    Args:
        address: The host of the record, such as https://zenodo.org.
        archives: That are wanted.
        folder: Gets a folder `Actor_01` and so on, each of them whole from its first moment.
        policy: How long to wait, and how often.

    Raises:
        DownloadFailed: The record cannot be read, lacks an archive or has another one of its name,
            or an archive cannot be fetched; what was fetched before stays.
    """
    wanted = [archive for archive in archives if not is_whole(folder / archive.folder)]
    if not wanted:
        return
    print(f"ravdess: asking {address}, up to {policy.attempts} times", flush=True)
    session = open_session(policy)
    addresses = _find_in_record(get_json(session, _record(address), policy), wanted, address)
    num_bytes = sum(archive.size for archive in wanted)
    print(f"ravdess: {len(wanted)} archives to fetch, {num_bytes / 1e9:.1f} GB")
    # Half of an archive stays (the video-only clips), and one archive at a time lies beside it.
    check_space(folder, num_bytes // 2 + max(archive.size for archive in wanted))
    with tqdm(total=num_bytes, unit="B", unit_scale=True, desc="download") as progress:
        for archive in wanted:
            path = folder / archive.name
            download(
                session,
                addresses[archive],
                path,
                checksum=f"md5:{archive.md5}",
                size=archive.size,
                policy=policy,
                progress=progress,
            )
            unpack(
                path,
                folder / archive.folder,
                lambda name: Path(name).name if is_wanted(name) else None,
                max_bytes=_MAX_UNPACKED,
            )
            path.unlink()


def _record(address: str) -> str:
    return f"{address}/api/records/{RECORD}"


def _find_in_record(answer: object, wanted: Sequence[Archive], address: str) -> dict[Archive, str]:
    """The address of each archive, by a record that says the same of it as files.csv."""
    try:
        listed = {file.key: file for file in _Record.model_validate(answer).files}
    except ValidationError as error:
        raise DownloadFailed(
            f"{address} does not answer as Zenodo does; check the address"
        ) from error
    for archive in wanted:
        file = listed.get(archive.name)
        if file is None:
            raise DownloadFailed(
                f"{_record(address)} lists no {archive.name}; it lists {', '.join(listed)}"
            )
        if (file.checksum, file.size) != (f"md5:{archive.md5}", archive.size):
            raise DownloadFailed(
                f"{_record(address)} has another {archive.name} ({file.checksum}, {file.size} "
                f"bytes) than datasets/ravdess/files.csv (md5:{archive.md5}, {archive.size} "
                "bytes): a new version? If you trust it, write its numbers into that table"
            )
    return {archive: listed[archive.name].links.address for archive in wanted}


def what_is_missing(clips: list[Clip]) -> list[str]:
    """What is missing of the published 24 x 60 clips, a line each."""
    counts = Counter(clip.subject for clip in clips)
    actors = [f"actor_{i:02}" for i in range(1, NUM_ACTORS + 1)]
    lines = []
    if absent := [actor for actor in actors if not counts[actor]]:
        lines.append(f"no clips of {', '.join(absent)}")
    if partial := [
        f"{actor} ({counts[actor]})" for actor in actors if 0 < counts[actor] < CLIPS_PER_ACTOR
    ]:
        lines.append(f"fewer than {CLIPS_PER_ACTOR} clips of {', '.join(partial)}")
    return lines
