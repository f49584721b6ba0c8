"""Folds as a data set's own lists have them, clip by clip, without a word about people.

What is known to belong together, a film or else the clip itself, is in one part of a fold.
"""

from collections.abc import Sequence

from pipeline.common.clips import NO_PART, StoredClip
from pipeline.folds.folds import PARTS, GroupFold
from pipeline.folds.group_folds import draw_part, refuse_no_part


def official_folds(
    clips: Sequence[StoredClip], *, validation_fraction: float, seed: int
) -> list[GroupFold]:
    """Folds by the clips' own parts (`Clip.split`), numbered from 1.

    Who tests is followed to the last clip, also where a class is missing then. Where a fold names
    nobody for validation, a part of its training groups is drawn.

    Raises:
        ValueError: A clip has no parts or another number of them, a group is in two parts of a
            fold, or a fold trains or tests nothing.
    """
    refuse_no_part(clips)
    parts_of = {clip.clip: clip.split.split() for clip in clips}
    num_folds = len(parts_of[clips[0].clip])
    for clip in clips:
        if len(parts_of[clip.clip]) != num_folds:
            raise ValueError(
                f"{clip.path} has a part in {len(parts_of[clip.clip])} fold(s), and "
                f"{clips[0].path} in {num_folds}; every clip needs one for every fold"
            )
    return [
        _fold(clips, [parts_of[clip.clip][i] for clip in clips], i + 1, validation_fraction, seed)
        for i in range(num_folds)
    ]


def _fold(
    clips: Sequence[StoredClip], words: Sequence[str], number: int, fraction: float, seed: int
) -> GroupFold:
    """Fold `number`, of which `words` has the part of every clip."""
    part_of: dict[str, str] = {}
    for clip, word in zip(clips, words, strict=True):
        if word not in (*PARTS, NO_PART):
            raise ValueError(f"{clip.path} is in part {word!r}; known are {', '.join(PARTS)}")
        other = part_of.setdefault(clip.group, word)
        if other != word:
            raise ValueError(
                f"{clip.group_kind} {clip.group} is in {other} and in {word} of fold {number}; "
                "what belongs together belongs into one part"
            )
    groups = {
        part: sorted(name for name, word in part_of.items() if word == part) for part in PARTS
    }
    for part in ("train", "test"):
        if not groups[part]:
            raise ValueError(f"no clip is in {part} of fold {number}; complete the lists")
    if not groups["validation"]:
        trained = [clip for clip, word in zip(clips, words, strict=True) if word == "train"]
        groups["validation"] = draw_part(trained, fraction, seed, num_others=1)
    left = sorted(set(groups["train"]).difference(groups["validation"]))
    return GroupFold(number, left, groups["validation"], groups["test"])
