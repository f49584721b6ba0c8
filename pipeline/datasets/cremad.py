"""CREMA-D: its files and actors, what a file name says, which clips are known to be bad.

A name is actor_sentence_emotion_level: `1001_IEO_ANG_HI.flv` is actor 1001, "It's eleven
o'clock", angry, high intensity.

Source: Cao et al. 2014, CREMA-D; the repository CheyneyComputerScience/CREMA-D on GitHub.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.acquire.http import DownloadFailed
from pipeline.acquire.lfs import BudgetSpent, LfsObject, fetch_objects
from pipeline.common.clips import Clip, Refusal
from pipeline.common.files import is_lfs_pointer, sha256_of
from pipeline.common.hosts import RetryPolicy
from pipeline.common.params import Section
from pipeline.common.sources import Videos, videos_folder
from pipeline.common.workers import map_in_threads

MIRROR = "https://gitlab.com/cs-cooper-lab/crema-d-mirror.git"

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
KNOWN_BAD = {
    "1064_IEO_DIS_MD": "a minute long and shows several emotions",
    "1064_TIE_SAD_XX": "declares no duration",
    "1076_MTI_NEU_XX": "declares no duration",
    "1076_MTI_SAD_XX": "declares no duration",
}
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)")


class Settings(Section):
    """An existing clone, or the repository to download from."""

    classes: list[str]
    source: Path | None
    address: str
    keep_known_bad: bool
    accept_licence: bool


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """The published clips, out of an existing clone or a download."""
    videos = videos_folder(settings.source, "cremad")
    objects = read_objects(tables / "files.csv")
    sexes = read_sexes(tables / "actors.csv")
    clips = list_clips(objects, sexes, keep_known_bad=settings.keep_known_bad)
    if not settings.source:
        wanted = {clip.path for clip in clips if not clip.reason}
        chosen = [item for item in objects if item.path in wanted]
        try:
            fetch_objects(settings.address, chosen, videos, policy=RetryPolicy())
        except BudgetSpent as error:
            raise DownloadFailed(
                f"{error} The mirror has the same files: -S datasets.cremad.address={MIRROR}"
            ) from error
    published = {item.path: item for item in objects}

    def check(clip: Clip) -> Clip:
        return check_file(clip, published[clip.path], videos)

    return Videos(list(map_in_threads(check, clips, "checking")), [videos], [])


def parse_name(path: str, sexes: Mapping[str, str]) -> Clip:
    """The clip that a CREMA-D file name describes.

    Args:
        path: Ends in the name.
        sexes: Of each actor, as `read_sexes` gives them.

    Raises:
        ValueError: The name does not follow the scheme, or the actor is unknown.
    """
    stem = Path(path).stem
    match = _NAME.fullmatch(stem)
    if not match:
        raise ValueError(f"{path}: not a CREMA-D name (such as 1001_IEO_ANG_HI)")
    actor, emotion = match[1], match[3]
    if actor not in sexes:
        raise ValueError(f"{path}: actor {actor} is not in the table of actors")
    return Clip(clip=stem, path=path, subject=actor, label=EMOTIONS[emotion], sex=sexes[actor])


def read_objects(table: Path) -> list[LfsObject]:
    """Path, SHA-256 and size in bytes of every video, out of `files.csv`."""
    rows = pd.read_csv(table, dtype={"path": "string", "sha256": "string", "size": "int64"})
    return [LfsObject(*row) for row in rows.itertuples(index=False, name=None)]


def read_sexes(table: Path) -> dict[str, str]:
    """`female` or `male` for every actor, out of `actors.csv`."""
    rows = pd.read_csv(table, dtype="string")
    return dict(zip(rows["ActorID"], rows["Sex"].str.casefold(), strict=True))


def list_clips(
    objects: list[LfsObject], sexes: Mapping[str, str], *, keep_known_bad: bool
) -> list[Clip]:
    """A clip for every published video; the known bad ones are refused unless they are kept."""
    clips = [parse_name(item.path, sexes) for item in objects]
    return [
        clip.refuse(
            Refusal(
                "known_bad",
                f"{clip.clip} {KNOWN_BAD[clip.clip]}; datasets.cremad.keep_known_bad keeps it",
            )
        )
        if clip.clip in KNOWN_BAD and not keep_known_bad
        else clip
        for clip in clips
    ]


def check_file(clip: Clip, published: LfsObject, folder: Path) -> Clip:
    """The clip, refused where its file is not the published one."""
    path = folder / clip.path
    if clip.reason:
        return clip
    if not path.is_file():
        refusal = Refusal("missing", f"{clip.path} is not in {folder.name}; copy it there")
    elif is_lfs_pointer(path):
        refusal = Refusal(
            "lfs_pointer",
            f"{clip.path} is a Git LFS pointer, not a video: run `git lfs pull` in the clone; if "
            f"the budget of its host is spent, download from the mirror {MIRROR}",
        )
    elif path.stat().st_size != published.size or sha256_of(path) != published.sha256:
        refusal = Refusal("wrong_checksum", f"{clip.path} is not the published file; copy it again")
    else:
        return clip
    return clip.refuse(refusal)
