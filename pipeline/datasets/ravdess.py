"""RAVDESS: where it is, what a file name says, what is missing of it.

A name is modality-channel-emotion-intensity-statement-repetition-actor, two digits each:
`02-01-06-01-02-01-12.mp4` is video only, speech, fearful, normal intensity, "dogs", first
repetition, actor 12. The embedded `sample` set names its clips the same way.

Source: Livingstone and Russo 2018, the data set's own description (Zenodo record 1188976).
"""

import re
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from pipeline.acquire.archives import is_whole, unpack
from pipeline.acquire.download import check_space, download
from pipeline.acquire.http import DownloadFailed, Patience, get_json, open_session
from pipeline.common.clips import Clip
from pipeline.common.sources import is_hidden

RECORD = "1188976"
ACTORS = range(1, 25)
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


def fetch(address: str, folder: Path, patience: Patience) -> None:
    """Download and unpack the actors that are not in the folder yet, one archive after the other.

    An archive is checked against the checksum that the Zenodo record states, and deleted once its
    video-only clips are unpacked.

    Args:
        address: The host of the record, such as https://zenodo.org.
        folder: Gets a folder `Actor_01` and so on, each of them whole from its first moment.
        patience: How long to wait, and how often.

    Raises:
        DownloadFailed: The record cannot be read, lists no archive of any actor, or an archive
            cannot be fetched; what was fetched before stays.
    """
    absent = [i for i in ACTORS if not is_whole(folder / f"Actor_{i:02}")]
    if not absent:
        return
    session = open_session(patience)
    answer = get_json(session, f"{address}/api/records/{RECORD}", patience)
    try:
        listed = _Record.model_validate(answer).files
    except ValidationError as error:
        raise DownloadFailed(
            f"{address} does not answer as Zenodo does; check the address"
        ) from error
    archives = {int(match[1]): file for file in listed if (match := _ARCHIVE.fullmatch(file.key))}
    wanted = {actor: archives[actor] for actor in absent if actor in archives}
    sizes = [file.size for file in wanted.values()]
    if not wanted and len(absent) < len(ACTORS):
        return  # What is missing is said when the clips are listed.
    if not wanted:
        raise DownloadFailed(
            f"{address} lists no archive of actors {', '.join(map(str, absent))} in record "
            f"{RECORD}; it lists {', '.join(file.key for file in listed)}"
        )
    print(f"ravdess: {len(wanted)} archives to fetch, {sum(sizes) / 1e9:.1f} GB")
    # Half of an archive stays (the video-only clips), and one archive at a time lies beside it.
    check_space(folder, sum(sizes) // 2 + max(sizes))
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, desc="download") as progress:
        for actor, file in wanted.items():
            archive = folder / file.key
            download(
                session,
                file.links.address,
                archive,
                checksum=file.checksum,
                size=file.size,
                patience=patience,
                progress=progress,
            )
            unpack(
                archive,
                folder / f"Actor_{actor:02}",
                lambda name: Path(name).name if is_wanted(name) else None,
                max_bytes=_MAX_UNPACKED,
            )
            archive.unlink()


def what_is_missing(clips: list[Clip]) -> list[str]:
    """What is missing of the published 24 x 60 clips, a line each."""
    counts = Counter(clip.subject for clip in clips)
    actors = [f"actor_{i:02}" for i in ACTORS]
    lines = []
    if absent := [actor for actor in actors if not counts[actor]]:
        lines.append(f"no clips of {', '.join(absent)}")
    if partial := [
        f"{actor} ({counts[actor]})" for actor in actors if 0 < counts[actor] < CLIPS_PER_ACTOR
    ]:
        lines.append(f"fewer than {CLIPS_PER_ACTOR} clips of {', '.join(partial)}")
    return lines
