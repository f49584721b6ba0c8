"""What the training of a fold reads: the set and its parts, and whom prior and CNN have seen."""

from pathlib import Path
from typing import NamedTuple

from pipeline.affect.cnn_stored import read_record
from pipeline.affect.feed import Pictures
from pipeline.affect.image_folds import read_fold, refuse_leaks, refuse_seen
from pipeline.affect.stored import IMAGES, PIXELS, StoredSet, read_challenge, read_stored
from pipeline.common.encoder_weights import CARD, History, history_in
from pipeline.common.files import sha256_of


class Inputs(NamedTuple):
    """Folders of the set, of the prior and of the CNN, and the table of folds."""

    data: Path
    folds: Path
    prior: Path
    cnn: Path


class FoldData:
    """A fold of a set, as a model of this size sees it.

    Args:
        inputs: Where all is.
        number: Of the fold.
        side: Of what the model sees, in pixels.
        crop: Side of the window that it sees over that of the picture.

    Raises:
        ValueError: Somebody who is tested has been seen.
    """

    def __init__(self, inputs: Inputs, number: int, *, side: int, crop: float) -> None:
        self.inputs = inputs
        self.side, self.crop = side, crop
        self.stored = read_stored(inputs.data)
        self.challenge = read_challenge(inputs.data)
        self.fold = read_fold(inputs.folds, number)
        self.refuse_what_was_seen()

    @property
    def classes(self) -> tuple[str, ...]:
        """Expressions, in the order of the scores."""
        return self.stored.card.classes

    def refuse_what_was_seen(self) -> None:
        """Check that neither the other parts nor prior and CNN hold anybody who is tested."""
        images, identity = self.stored.images, self.stored.card.identity
        refuse_leaks(self.fold, images)
        elsewhere = {
            "prior": history_in(self.inputs.prior),
            "cnn": read_record(self.inputs.cnn).history,
        }
        for what, history in elsewhere.items():
            refuse_seen(history, what, identity, self.fold, images)

    def part(self, name: str) -> Pictures:
        """The pictures of a part as an evaluation sees them.

        Raises:
            ValueError: There are none.
        """
        rows = self.fold.rows(self.stored.images, name)
        if not rows:
            raise ValueError(f"fold {self.fold.number} has nothing in its {name} part")
        return self._pictures(self.stored, rows)

    def test_list(self) -> Pictures:
        """Those of the challenge's list, without labels."""
        return self._pictures(self.challenge, list(range(len(self.challenge.images))))

    def seen(self) -> History:
        """Whom a model has seen that was trained on this fold."""
        groups = self.fold.groups(self.stored.images, "train", "validation")
        return history_in(self.inputs.prior).with_groups(self.stored.card.identity, groups)

    def digests(self) -> dict[str, str]:
        """Of the files that the training's result rests on."""
        files = {
            IMAGES: self.inputs.data / IMAGES,
            PIXELS: self.inputs.data / PIXELS,
            CARD: self.inputs.prior / CARD,
            "cnn.json": self.inputs.cnn / CARD,
        }
        return {name: sha256_of(path) for name, path in files.items()}

    def _pictures(self, stored: StoredSet, rows: list[int]) -> Pictures:
        return Pictures(stored, rows, side=self.side, crop=self.crop)
