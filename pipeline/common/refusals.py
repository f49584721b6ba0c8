"""What is said of clips, files and lines that were refused, and how many of them may be."""

import math
from collections.abc import Iterable
from pathlib import Path

# Shown of each reason; the others are in the stage's report.
_SHOWN = 3
# A limit that is a share says nothing sensible of a dozen clips: so many are allowed beside it.
ALWAYS_ALLOWED = 2


def described(refusals: Iterable[tuple[str, str]]) -> list[str]:
    """A line for the first few refusals of each reason, and one that counts the others.

    Args:
        refusals: The reason, a short code, and what is said of it.
    """
    by_reason: dict[str, list[str]] = {}
    for reason, line in refusals:
        by_reason.setdefault(reason, []).append(line)
    lines = []
    for reason, words in by_reason.items():
        lines += [f"refused, {line}" for line in words[:_SHOWN]]
        if len(words) > _SHOWN:
            lines.append(f"refused, and {len(words) - _SHOWN:,} more: {reason}")
    return lines


def check_share(
    num_refused: int, num_all: int, max_refused: float, *, things: str, name: str, report: Path
) -> None:
    """Make sure that not too much was refused.

    Two are always allowed, so that the share counts from `2 / max_refused` things on: for 0.05 from
    40. With 0 none is allowed, ever.

    Args:
        num_refused: Of `num_all`.
        num_all: Used and refused.
        max_refused: The share that is allowed, from 0 to 1.
        things: That were refused, in words, such as `clips`.
        name: Of the share in its params.yaml.
        report: Where the reasons are.

    Raises:
        ValueError: More were refused; the message says which share would do.
    """
    allowed = max(max_refused * num_all, ALWAYS_ALLOWED if max_refused else 0)
    if num_refused <= allowed:
        return
    enough = min(math.ceil(1000 * num_refused / num_all) / 1000, 1.0)
    raise ValueError(
        f"{num_refused:,} of {num_all:,} {things} were refused, more than {name} = {max_refused} "
        f"allows; the reasons are above and in {report}. Mend them, or, to go on without them, "
        f"write {name}: {enough} into params.yaml"
    )
