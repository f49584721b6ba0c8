import pandas as pd

from pipeline.evaluation.markdown import markdown_table


def test_a_text_stays_in_its_cell_and_is_no_markup() -> None:
    table = pd.DataFrame({"name": ["a|b", "<img src=x>", "R&D\nteam"], "clips": [1, 2, 3]})
    assert markdown_table(table).splitlines() == [
        "| name | clips |",
        "| --- | --- |",
        "| a\\|b | 1 |",
        "| &lt;img src=x> | 2 |",
        "| R&amp;D team | 3 |",
    ]
