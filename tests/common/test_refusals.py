from pathlib import Path

import pytest

from pipeline.common.refusals import check_share, described

REPORT = Path("metrics/data_quality.json")


def check(num_refused: int, num_all: int, max_refused: float) -> None:
    check_share(num_refused, num_all, max_refused, things="clips", name="q.max", report=REPORT)


@pytest.mark.parametrize(
    ("num_refused", "num_all", "max_refused"),
    [(2, 12, 0.05), (2, 39, 0.05), (2, 40, 0.05), (3, 60, 0.05), (0, 3, 0.0), (9, 9, 1.0)],
)
def test_a_share_counts_from_the_number_at_which_it_allows_two(
    num_refused: int, num_all: int, max_refused: float
) -> None:
    check(num_refused, num_all, max_refused)


@pytest.mark.parametrize(
    ("num_refused", "num_all", "max_refused", "enough"),
    [(3, 12, 0.05, 0.25), (3, 59, 0.05, 0.051), (1, 12, 0.0, 0.084), (2, 3, 0.0, 0.667)],
)
def test_too_many_are_told_with_the_number_that_would_do(
    num_refused: int, num_all: int, max_refused: float, enough: float
) -> None:
    with pytest.raises(ValueError, match=rf"write q\.max: {enough} into params\.yaml") as caught:
        check(num_refused, num_all, max_refused)
    words = f"{num_refused} of {num_all} clips were refused, more than q.max = {max_refused}"
    assert str(caught.value).startswith(words)
    check(num_refused, num_all, enough)


def test_equal_refusals_are_counted_and_the_first_few_are_shown() -> None:
    refusals = [("missing", f"row {i}: not there") for i in range(80)]
    refusals.insert(40, ("empty", "row 7: zero bytes"))
    assert described(refusals) == [
        "refused, row 0: not there",
        "refused, row 1: not there",
        "refused, row 2: not there",
        "refused, and 77 more: missing",
        "refused, row 7: zero bytes",
    ]
