"""The check that an encoder has not seen those who are tested."""

from collections.abc import Sequence

from pipeline.common.clips import StoredClip
from pipeline.common.encoder_weights import History
from pipeline.folds.folds import Fold


def refuse_seen(history: History, dataset: str, fold: Fold, clips: Sequence[StoredClip]) -> None:
    """Check that no test subject of the fold was used to train or choose the encoder's weights.

    Subjects are told apart by name within a data set of that name; weights whose history nobody
    knows pass.

    Raises:
        ValueError: Some were.
    """
    tested = {clips[row].group for row in fold.rows(clips, "test")}
    if seen := sorted(tested.intersection(history.groups.get(dataset, []))):
        raise ValueError(
            f"fold {fold.number} is not trained: its encoder's weights have seen "
            f"{len(seen)} of the {len(tested)} subjects that it tests ({', '.join(seen[:10])}); "
            "take weights that were trained without them (of a model of this project, those of "
            "the same fold), or from_scratch"
        )
