"""What the numbers of an experiment rest on, as every page says that shows them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import pandas as pd

from pipeline.common.clips import StoredClip, group_words
from pipeline.common.encoder_weights import History
from pipeline.common.params import Section

# In the folder of the metrics: the setting of the experiment.
SETTING = "setting.json"
# As `group_words` says them.
SUBJECTS, CLIPS = "subjects", "clips"


class Coverage(Section):
    """What share of a data set was tested.

    Attributes:
        clips: That were tested, each of them once.
        all_clips: In the manifest of the shards.
        subjects: That were tested.
        all_subjects: In the manifest.
        folds: Numbers of those that were tested.
        all_folds: How many the protocol has.
        groups: What the subjects are, in words: where nobody knows who is seen, `films` or `clips`.
    """

    clips: int
    all_clips: int
    subjects: int
    all_subjects: int
    folds: list[int]
    all_folds: int
    groups: str = SUBJECTS

    @property
    def complete(self) -> bool:
        """Whether every clip was tested."""
        return self.clips == self.all_clips

    def in_words(self) -> str:
        """For pages: `84 of 210 clips, 6 of 15 subjects`."""
        found = f"{self.clips} of {self.all_clips} clips"
        if self.groups == CLIPS:
            return found
        return f"{found}, {self.subjects} of {self.all_subjects} {self.groups}"


def coverage(predictions: pd.DataFrame, clips: Sequence[StoredClip], all_folds: int) -> Coverage:
    """Compare what was tested with the manifest.

    Raises:
        ValueError: A clip was tested twice, is not in the manifest, or has another subject or
            label there.
    """
    known = {clip.clip: (clip.group, clip.label) for clip in clips}
    tested = Counter(predictions["clip"])
    if twice := [clip for clip, times in tested.items() if times > 1]:
        raise ValueError(f"{len(twice)} clips were tested more than once, such as {twice[0]}")
    for clip, *truth in predictions[["clip", "subject", "actual"]].itertuples(index=False):
        if known.get(clip) != tuple(truth):
            raise ValueError(
                f"{clip} was tested as {' and '.join(truth)}, and the manifest has "
                f"{' and '.join(known.get(clip, ('no such clip',)))}: train the folds again"
            )
    return Coverage(
        clips=len(predictions),
        all_clips=len(clips),
        subjects=predictions["subject"].nunique(),
        all_subjects=len({clip.group for clip in clips}),
        folds=sorted(map(int, predictions["fold"].unique())),
        all_folds=all_folds,
        groups=group_words(clips),
    )


class Setting(Section):
    """What an experiment's numbers rest on.

    Attributes:
        dataset: As in params.yaml, and so are `model`, `recipe`, `protocol` and `classes`.
        seeds: Of the trainings that the numbers are the mean of.
        views: Of each clip, over which its prediction is the mean.
        encoder: Name of what it started from.
        history: Whom that had seen.
        seen: How many of the subjects that were tested are among them.
        occurring: Those of the classes that a tested clip shows.
        coverage: Of each of the trainings.
        lacking: By fold, the parts and their classes without a clip.
    """

    dataset: str
    model: str
    recipe: str
    seeds: list[int]
    protocol: str
    views: int
    encoder: str
    history: History
    seen: int
    classes: list[str]
    occurring: list[str]
    coverage: Coverage
    lacking: dict[int, dict[str, list[str]]]

    def with_seeds(self, seeds: Sequence[int]) -> Self:
        """The same of several trainings, whose folds are not those of one."""
        lacking = self.lacking if list(seeds) == self.seeds else {}
        return self.model_copy(update={"seeds": list(seeds), "lacking": lacking})

    def in_a_line(self) -> str:
        """All that is chosen, for a heading."""
        seeds = ("seed " if len(self.seeds) == 1 else "seeds ") + ", ".join(map(str, self.seeds))
        return (
            f"Model {self.model}, recipe {self.recipe}, encoder {self.encoder}, protocol "
            f"{self.protocol}, {seeds}"
            + (f", the mean over {self.views} views of every test clip" if self.views > 1 else "")
        )

    def sentences(self) -> list[str]:
        """What a reader must know before any number."""
        return [
            _who_was_tested(self.coverage, self.seen),
            *_what_the_encoder_has_seen(self),
            f"{len(self.occurring)} classes occur ({', '.join(self.occurring)}): chance is a UAR "
            f"of {1 / len(self.occurring):.1%}.",
            *_missing_classes(self.classes, self.occurring),
            *_lacking_classes(self.lacking),
        ]

    def trace(self) -> str:
        """How a number is traced back to clips."""
        return (
            f"Every number here follows from `data/predictions/{self.dataset}.parquet`, a row per "
            f"tested clip; its `clip` is the key in `data/shards/{self.dataset}/clips.parquet`, "
            "whose `path` is the video. docs/files.md describes all columns."
        )


def _who_was_tested(found: Coverage, seen: int) -> str:
    if found.groups != SUBJECTS:
        return _what_was_tested(found)
    model = "fine-tuned without that person" if seen else "that never saw that person"
    if found.complete:
        return (
            f"Tested: all {found.clips} clips of all {found.subjects} subjects, every subject in "
            f"exactly one fold, by a model {model}."
        )
    folds = ", ".join(map(str, found.folds))
    return (
        f"**Tested: {found.in_words()}** (folds {folds} of {found.all_folds}), each subject by a "
        f"model {model}. How the others would come out is not known."
    )


def _what_was_tested(found: Coverage) -> str:
    """Of a data set in which nobody is named."""
    whole = f"Tested: all {found.clips} clips"
    if not found.complete:
        folds = ", ".join(map(str, found.folds))
        whole = f"**Tested: {found.in_words()}** (folds {folds} of {found.all_folds})"
    elif found.groups != CLIPS:
        whole += f" of all {found.subjects} {found.groups}"
    return (
        f"{whole}, each by a model that was trained without it. Who is seen is not known: the same "
        f"person may be trained on and tested, and intervals are over {found.groups}, not over "
        "people."
    )


def _what_the_encoder_has_seen(setting: Setting) -> list[str]:
    history = setting.history
    if not history.known:
        return [
            f"**Of the encoder's weights ({setting.encoder}) nobody knows what they were trained "
            "on**: they may have seen those who are tested."
        ]
    if setting.seen:
        return [
            f"**The encoder ({setting.encoder}) has seen {setting.seen} of the "
            f"{setting.coverage.subjects} {setting.coverage.groups} that are tested**: the numbers "
            f"are too good for people whom it has not met. It {history.in_words()}."
        ]
    if history.trained_on or history.groups:
        return [f"The encoder ({setting.encoder}) {history.in_words()}."]
    return []


def _missing_classes(classes: Sequence[str], occurring: Sequence[str]) -> list[str]:
    missing = [name for name in classes if name not in occurring]
    if not missing:
        return []
    return [
        f"No clip of {', '.join(missing)} was tested: UAR is over the {len(occurring)} other "
        "classes, and chance is that of these."
    ]


def _lacking_classes(lacking: Mapping[int, Mapping[str, Sequence[str]]]) -> list[str]:
    places = [
        f"{part} of fold {fold} ({', '.join(names)})"
        for fold, parts in lacking.items()
        for part, names in parts.items()
    ]
    if not places:
        return []
    return [f"Without a clip of a class: {'; '.join(places)}. A UAR there is over the others."]
