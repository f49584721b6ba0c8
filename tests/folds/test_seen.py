import pytest

from pipeline.common.clips import StoredClip
from pipeline.common.encoder_weights import History
from pipeline.folds.folds import Fold
from pipeline.folds.seen import refuse_seen

CLIPS = [StoredClip(f"{who}{i}", "", who, "happy") for who in "abcd" for i in range(2)]
FOLD = Fold(2, {"a0": "train", "b0": "validation", "c0": "test", "d0": "test"})


def test_weights_that_have_seen_who_is_tested_are_refused_by_name() -> None:
    seen = History.empty().with_groups("sample", ["a", "d"])
    with pytest.raises(
        ValueError, match=r"fold 2 is not trained: .* 1 of the 2 subjects .*\(d\)"
    ) as error:
        refuse_seen(seen, "sample", FOLD, CLIPS)
    advice = "exclude_folds.table=data/folds/sample.csv and exclude_folds.folds=[2]"
    assert advice in str(error.value)


def test_weights_that_have_seen_others_alone_pass() -> None:
    for history in (
        History.empty(),
        History.empty().with_groups("sample", ["a", "b"]),
        History.empty().with_groups("another", ["c", "d"]),
        History(known=False, trained_on="", groups={}),
    ):
        refuse_seen(history, "sample", FOLD, CLIPS)
