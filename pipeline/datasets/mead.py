"""MEAD: structure of its folders, which sentences are used, what is missing.

The data set is given out on request, so nothing is downloaded: a folder holds, for each actor, the
unpacked tree `M003/video/front/angry/level_1/001.mp4` or the archive `M003/video.tar` (also
`M003.tar`, `M003.zip`).

Source: Wang et al. 2020, MEAD; the data set's own page for the rule of the test sentences.
"""

import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pipeline.acquire.archive_members import NothingWanted
from pipeline.acquire.archives import is_whole, unpack
from pipeline.common.clips import Clip
from pipeline.common.params import Section
from pipeline.common.sources import Videos, local_copy, videos_folder
from pipeline.common.vocabulary import normalise_label

View = Literal["front", "left_30", "left_60", "right_30", "right_60", "top", "down"]
VIEWS: tuple[View, ...] = get_args(View)
Subset = Literal["test_sentences", "all"]

EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
_LABEL_OF = {emotion: normalise_label(emotion) for emotion in EMOTIONS}
LEVELS = (1, 2, 3)
# The 48 actors that are given out, of the 60 who were recorded.
ACTORS = [
    *(f"M{i:03}" for i in (3, 5, 7, 9, 11, 12, 13, 19, *range(22, 36), 37, 39, 40, 41, 42)),
    *(f"W{i:03}" for i in (9, 11, *range(14, 20), 21, 23, 24, 25, 26, 28, 29, 33, *range(35, 39))),
    "W040",
]
# The data set's own rule: the last sentences of each emotion and level.
_NUM_TEST_SENTENCES = 6
_NUM_NEUTRAL_TEST_SENTENCES = 10

_ACTOR = re.compile(r"[MW]\d{3}")
# View, emotion, level and sentence; before them, where the layout has it, the actor.
_CLIP = re.compile(
    rf"(?:(?:^|/)({_ACTOR.pattern})/(?:video/)*|^|/)"
    r"(([a-z]+(?:_\d\d)?)/([a-z]+)/level_([1-3])/(\d{3})\.mp4)$"
)
_MAX_UNPACKED = 200 * 2**30


class Settings(Section):
    """The folder of the actors' archives or unpacked trees, and what is used of it."""

    classes: list[str]
    source: Path | None
    view: View | Literal["all"]
    subset: Subset
    accept_licence: bool


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """The chosen sentences of one view or of all, out of unpacked trees and archives.

    Raises:
        ValueError: No folder is named, or there is no clip of that view in it.
    """
    if settings.source is None:
        raise ValueError(
            "MEAD is given out on request (datasets/mead/README.md): name the folder of its "
            "archives or unpacked actors in datasets.mead.source"
        )
    source, unpacked = videos_folder(settings.source, "mead"), local_copy("mead")
    views = VIEWS if settings.view == "all" else (settings.view,)
    for view in views:
        unpack_archives(source, unpacked, view)
    tree = find_clips([source, unpacked], views, settings.subset)
    return Videos(tree.clips, [source, unpacked], what_is_missing(tree, views))


class Tree(NamedTuple):
    """The chosen clips, every view that each actor has, and clips that are in no actor's folder."""

    clips: list[Clip]
    views: dict[str, set[str]]
    strays: list[str]


def unpack_archives(source: Path, folder: Path, view: View) -> None:
    """Unpack one view of every actor's archive, unless it is unpacked already.

    Args:
        source: Holds `<actor>/video.tar`, `<actor>.tar` or `<actor>.zip`.
        folder: Gets `<view>/<actor>/<view>/<emotion>/level_<n>/<sentence>.mp4`.
        view: The only camera that is unpacked.

    Raises:
        ValueError: An archive is damaged or not safe; what was unpacked before stays.
    """

    for path in sorted([*source.glob("*.tar"), *source.glob("*.zip"), *source.glob("*/video.tar")]):
        name = path.relative_to(source).as_posix()
        actor = path.parent.name if path.parent != source else path.stem
        if not _ACTOR.fullmatch(actor):
            print(f"mead: {name} is left aside: it is not named after an actor, such as M003")
            continue
        if is_whole(folder / view / actor):
            continue
        if any((source / actor / sub / view).is_dir() for sub in ("video", "")):
            continue  # Unpacked beside its archive, by hand.
        print(f"mead: unpacking view {view} of {name}")
        try:
            choose = partial(_place_of, archive=name, actor=actor, view=view)
            unpack(path, folder / view / actor, choose, max_bytes=_MAX_UNPACKED)
        except NothingWanted:
            print(f"  {name} has no clip of that view")


def _place_of(member: str, archive: str, actor: str, view: View) -> str | None:
    """Where a file of an actor's archive is unpacked to; None for one of another view."""
    match = _CLIP.search(member)
    if not match or match[3] != view:
        return None
    if match[1] not in (None, actor):
        raise ValueError(f"{archive} has a clip of another actor than {actor}: {member}")
    return match[2]


def find_clips(folders: list[Path], views: Sequence[View], subset: Subset) -> Tree:
    """The clips of some views, by actor, view, emotion, level and sentence.

    `test_sentences` keeps the last six sentences of every emotion and level, and the last ten
    neutral ones. The list behind the paper's 6,568 clips is not published; this rule is the closest
    public one.

    Raises:
        ValueError: There is no clip of these views, or one of them is there twice.
    """
    # By cell, that is actor, view, emotion and level, the path of every sentence. At 200,000 clips
    # an object for each path would be most of the time and of the memory.
    cells: dict[tuple[str, str, str, str], dict[str, str]] = defaultdict(dict)
    seen: dict[str, set[str]] = defaultdict(set)
    strays: list[str] = []
    for relative in (path for folder in folders for path in _video_paths(folder)):
        match = _CLIP.search(relative)
        if not match or match[4] not in EMOTIONS:
            continue
        actor, _, view, emotion, level, sentence = match.groups()
        if actor is None:
            strays.append(relative)
            continue
        seen[actor].add(view)
        if view not in views:
            continue
        cell = cells[actor, view, emotion, level]
        if sentence in cell:
            raise ValueError(f"{relative} is there twice, also as {cell[sentence]}; keep one copy")
        cell[sentence] = relative
    if not cells:
        raise ValueError(
            f"no clip of view {views[0]} below {' or '.join(map(str, folders))}; it should hold "
            f"M003/video/{views[0]}/angry/level_1/001.mp4 and so on, or M003/video.tar"
            + (f", but it holds {strays[0]}" if strays else "")
        )
    clips = [
        _clip(cell, sentence, paths[sentence])
        for cell, paths in sorted(cells.items())
        for sentence in _chosen(cell, paths, subset)
    ]
    return Tree(clips, dict(seen), strays)


def _video_paths(folder: Path) -> Iterator[str]:
    """The mp4 files below a folder, relative to it and in the order of their paths' parts."""
    for name, folders, files in os.walk(folder):
        # An unpacking that was killed leaves hidden folders.
        folders[:] = sorted(part for part in folders if not part.startswith("."))
        place = Path(name).relative_to(folder).as_posix()
        for file in sorted(files):
            if file.endswith(".mp4") and not file.startswith("."):
                yield file if place == "." else f"{place}/{file}"


def _chosen(cell: tuple[str, str, str, str], sentences: Iterable[str], subset: Subset) -> list[str]:
    ordered = sorted(sentences)
    if subset == "all":
        return ordered
    neutral = cell[2] == "neutral"
    return ordered[-(_NUM_NEUTRAL_TEST_SENTENCES if neutral else _NUM_TEST_SENTENCES) :]


def _clip(cell: tuple[str, str, str, str], sentence: str, path: str) -> Clip:
    actor, _, emotion, _ = cell
    return Clip(
        clip="_".join([*cell, sentence]),
        path=path,
        subject=actor,
        label=_LABEL_OF[emotion],
        sex="male" if actor.startswith("M") else "female",
    )


def what_is_missing(tree: Tree, views: Sequence[View]) -> list[str]:
    """What the tree lacks of actors, views, emotions and levels, and what is left aside."""
    cells = {clip.clip.rpartition("_")[0] for clip in tree.clips}
    actors = {clip.subject for clip in tree.clips}
    lines = []
    if absent := [actor for actor in ACTORS if actor not in tree.views]:
        lines.append(f"no clips of {', '.join(absent)}")
    if unknown := sorted(actors - set(ACTORS)):
        lines.append(f"not among the 48 public actors: {', '.join(unknown)}")
    for actor, found in sorted(tree.views.items()):
        for view in views:
            if view not in found:
                lines.append(f"{actor} lacks view {view}; it has {', '.join(sorted(found))}")
            elif lacking := _lacking_cells(f"{actor}_{view}", cells):
                of_view = f"of view {view} " if len(views) > 1 else ""
                lines.append(f"{actor} lacks {of_view}{', '.join(lacking)}")
    if tree.strays:
        lines.append(
            f"left aside, because no actor's folder holds them: {len(tree.strays)} clips, such as "
            f"{tree.strays[0]}"
        )
    return lines


def _lacking_cells(start: str, cells: Container[str]) -> list[str]:
    return [
        f"{emotion} level {level}"
        for emotion in EMOTIONS
        for level in (LEVELS if emotion != "neutral" else LEVELS[:1])
        if f"{start}_{emotion}_{level}" not in cells
    ]
