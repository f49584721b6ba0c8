"""The test list of a challenge on s-Aff-Wild2, and the file that is handed in for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.affect.labels import EXPRESSIONS, LabelledImage
from pipeline.affect.metrics import Answers, Truth, constant_answers
from pipeline.affect.s_aff_wild2 import HEADER, read_cells
from pipeline.common.files import atomic_path


def read_test_list(file: Path) -> list[str]:
    """The images of a test list, in its order; some are listed more than once.

    Raises:
        ValueError: A line holds more than an image.
    """
    paths = []
    for number, cells in read_cells(file):
        if len(cells) != 1:
            raise ValueError(f"{file}, line {number}: {len(cells)} cells where one image belongs")
        paths.append(cells[0])
    return paths


class Answer(NamedTuple):
    """What is submitted for an image: numbers in [-1, 1], an expression, active units."""

    valence: float
    arousal: float
    expression: str
    aus: tuple[bool, ...]


def answers_by_path(
    images: Sequence[LabelledImage], answers: Answers, classes: Sequence[str]
) -> dict[str, Answer]:
    """What is said of some images, by their paths."""
    return {
        image.path: Answer(valence, arousal, classes[label], tuple(map(bool, units)))
        for image, (valence, arousal), label, units in zip(
            images,
            answers.valence_arousal.tolist(),
            answers.expression,
            answers.aus.tolist(),
            strict=True,
        )
    }


def fill_in(
    found: Mapping[str, Answer], listed: Sequence[str], training: Truth
) -> dict[str, Answer]:
    """With answers of a constant predictor for listed images that are not there.

    Args:
        found: Answers by path.
        listed: Of `read_test_list`.
        training: Whose frequencies the constant predictor knows.
    """
    said = constant_answers(training, 1, len(EXPRESSIONS))
    valence, arousal = said.valence_arousal[0].tolist()
    units = tuple(bool(active) for active in said.aus[0])
    constant = Answer(valence, arousal, EXPRESSIONS[int(said.expression[0])], units)
    return {path: found.get(path, constant) for path in listed}


def write_submission(file: Path, listed: Sequence[str], answers: Mapping[str, Answer]) -> None:
    """One line for each line of the test list, in its order; repeated images get the same twice.

    Valence and arousal beyond [-1, 1] are cut off there.

    Args:
        file: To write.
        listed: Of `read_test_list`.
        answers: By the image's path.

    Raises:
        ValueError: An image of the list has no answer.
    """
    if missing := [path for path in listed if path not in answers]:
        raise ValueError(
            f"{len(missing)} listed images have no prediction, such as {missing[0]}: a submission "
            "needs a line for each, also where its picture is missing"
        )
    rows = [",".join(HEADER)]
    for path in listed:
        said = answers[path]
        numbers = [f"{min(max(x, -1.0), 1.0):.6f}" for x in (said.valence, said.arousal)]
        labels = [EXPRESSIONS.index(said.expression), *map(int, said.aus)]
        rows.append(",".join([path, *numbers, *map(str, labels)]))
    with atomic_path(file) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
