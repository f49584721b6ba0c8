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
    if seen := history.seen_of(dataset, tested):
        raise ValueError(
            f"fold {fold.number} is not trained: its encoder's weights have seen "
            f"{len(seen)} of the {len(tested)} subjects that it tests ({', '.join(seen[:10])}); "
            "take weights that were trained without them: of a model of this project, those of "
            f"the same fold; of a pre-training, with exclude_folds.table=data/folds/{dataset}.csv "
            f"and exclude_folds.folds=[{fold.number}] in pretrain/params.yaml. Or take "
            "from_scratch, or set encoder.allow_seen to true: every table then says so"
        )
