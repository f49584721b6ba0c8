"""How the classes of a model meet the labels of a data set that it was not trained on."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.common.vocabulary import normalise_label


class ClassMapping(NamedTuple):
    """How the classes of a model and the labels of a data set meet.

    Attributes:
        answers: A classes that the model can answer, in its order.
        columns: For each answer, the model's outputs that speak for it: `neutral` and `calm`, say.
        labels: The answer that is right for clips of a label, for each label the model knows.
        left_out: Labels that the model does not know, sorted; their clips are not used.
        never_right: Classes of the model that the data set lacks, in the model's order.
    """

    answers: list[str]
    columns: list[list[int]]
    labels: dict[str, str]
    left_out: list[str]
    never_right: list[str]

    @property
    def common(self) -> list[str]:
        """Classes that both sides have, in the model's order."""
        return [answer for answer in self.answers if answer not in self.never_right]

    def restrict(self) -> "ClassMapping":
        """The same without the outputs of classes that the data set lacks."""
        columns = dict(zip(self.answers, self.columns, strict=True))
        return self._replace(answers=self.common, columns=[columns[name] for name in self.common])


def class_mapping(model_classes: Sequence[str], dataset_labels: Iterable[str]) -> ClassMapping:
    """Match the words of both sides in the project's vocabulary.

    Where only one side has calm, calm counts as neutral there: as in RAVDESS's 7-class protocol.
    `["calm", "neutral", "sad"]` and `{"neutral", "sadness"}` -> answers neutral (outputs 0 and 1)
    and sad (output 2).

    Args:
        model_classes: C names in the order of the logits.
        dataset_labels: Labels of the clips; repeats do not matter.

    Raises:
        ValueError: Fewer than two classes are common to both sides.
    """
    labels = sorted(set(dataset_labels))
    both_have_calm = all("calm" in map(normalise_label, side) for side in (model_classes, labels))

    def common_word(word: str) -> str:
        word = normalise_label(word)
        return "neutral" if word == "calm" and not both_have_calm else word

    columns: dict[str, list[int]] = {}
    for i, name in enumerate(model_classes):
        columns.setdefault(common_word(name), []).append(i)
    known = {label: common_word(label) for label in labels if common_word(label) in columns}
    if len(set(known.values())) < 2:
        raise ValueError(
            f"the model's classes ({', '.join(model_classes)}) and the data set's "
            f"({', '.join(labels)}) have {', '.join(set(known.values())) or 'nothing'} in common; "
            "at least two common classes are needed"
        )
    return ClassMapping(
        answers=list(columns),
        columns=list(columns.values()),
        labels=known,
        left_out=[label for label in labels if label not in known],
        never_right=[name for name in columns if name not in known.values()],
    )
