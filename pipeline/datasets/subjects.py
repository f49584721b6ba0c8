"""Whether two names of subjects are two spellings of one person.

One person under two names could be trained and tested on. `S01`, `s-1` and `S1` are one; `1-11` and
`11-1`, `S+` and `S-`, or two Hindi names that differ in a vowel sign, are two.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# What people write for a dash, an apostrophe or a slash and Unicode counts as a sign.
_LOOKALIKES = str.maketrans({"\u2212": "-", "~": "-", "`": "'", "\u00b4": "'", "|": "/"})
_MINUS = "\u2212"
# Canonical combining classes of the vowel points of Hebrew, Arabic and Syriac, which most people
# leave out. The vowel signs of other scripts have other classes and are never left out.
_OPTIONAL_POINTS = range(10, 37)


class _Reading(NamedTuple):
    """What spellings of one name share, and what they may differ in.

    `letters` are all that count, without leading zeros. `separators` says where there was a hyphen,
    a space or the like: how many letters follow each.
    """

    letters: str
    separators: frozenset[int]


def same_person(subjects: Iterable[str]) -> dict[str, list[str]]:
    """For each subject all spellings of that name among the subjects, itself too, in their order.

    Two names are one where they have the same letters, and one of them has a separator wherever the
    other has one. So `S-1` and `S1` are one, and `1_05` and `105`; but `1-11` and `11-1` are two.
    """
    readings = {subject: _readings(subject) for subject in subjects}
    order = {subject: i for i, subject in enumerate(readings)}
    by_letters: dict[str, list[tuple[str, frozenset[int]]]] = {}
    for subject, its_readings in readings.items():
        for letters, separators in its_readings:
            by_letters.setdefault(letters, []).append((subject, separators))
    return {
        subject: sorted(
            {
                other
                for letters, separators in its_readings
                for other, others in by_letters[letters]
                if separators <= others or others <= separators
            },
            key=order.__getitem__,
        )
        for subject, its_readings in readings.items()
    }


def _readings(subject: str) -> set[_Reading]:
    """Two, where it is open whether a zero after a separator leads a number: `1_05`, `S1_05`."""
    parts = _letters(subject).split()
    if not parts:
        return {_Reading(subject, frozenset())}
    trimmed = [_without_zeros(part) for part in parts]
    joined = trimmed[0]
    for part in trimmed[1:]:
        # Without the space, `1-5` would be 15.
        joined += f" {part}" if joined[-1].isdigit() and part[0].isdigit() else part
    return {
        _Reading(joined, _separators(trimmed)),
        _Reading(_without_zeros("".join(parts)), _separators(parts)),
    }


def _letters(subject: str) -> str:
    """Letters, vowel signs, numbers and signs such as `+`, in small; a space for all else."""
    text = unicodedata.normalize("NFKC", subject.translate(_LOOKALIKES)).casefold()
    # A Turkish İ is a small i with a dot of its own.
    text = unicodedata.normalize("NFKC", text).replace("i\u0307", "i")
    text = "".join("-" if unicodedata.category(char) == "Pd" else char for char in text).strip()
    # At an end a dash separates nothing: it is a minus.
    text = re.sub("^-|-$", _MINUS, text)
    return "".join(map(_letter, text))


def _letter(char: str) -> str:
    """The character; a space for a separator, nothing for what is not seen or may be left out."""
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    is_variation = "\ufe00" <= char <= "\ufe0f"
    if category == "Cf" or is_variation or unicodedata.combining(char) in _OPTIONAL_POINTS:
        return ""
    return " " if category[0] in "PZ" or category == "Cc" else char


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _separators(parts: Sequence[str]) -> frozenset[int]:
    lengths = [len(part) for part in parts]
    return frozenset(sum(lengths[i:]) for i in range(1, len(parts)))
