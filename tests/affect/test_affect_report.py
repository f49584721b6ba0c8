import numpy as np
import pandas as pd

from pipeline.affect.report_page import figure, html_table, most_wrong, page


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": ["a", "b", "c", "<d>"],
            "actual": ["happy", "sad", None, "happy"],
            "predicted": ["sad", "sad", "sad", "sad"],
            "probability_sad": [0.6, 0.9, 0.9, 0.8],
            "probability_happy": [0.4, 0.1, 0.1, 0.2],
            "actual_valence": [0.0, 0.5, 0.5, np.nan],
            "predicted_valence": [0.3, 0.5, 0.1, 0.0],
            "actual_arousal": [0.0, 0.5, 0.5, np.nan],
            "predicted_arousal": [0.4, 0.5, 0.5, 0.0],
        }
    )


def test_the_surest_mistakes_and_the_largest_distances_come_first() -> None:
    found = most_wrong(predictions(), most=2)
    assert [one.image for one in found["expression"]] == ["<d>", "a"]
    assert [one.image for one in found["valence and arousal"]] == ["a", "c"]
    assert [round(one.size, 6) for one in found["valence and arousal"]] == [0.5, 0.4]


def test_names_of_strangers_are_no_markup_and_pictures_are_shown_where_wanted() -> None:
    wrong = most_wrong(predictions(), most=1)["expression"][0]
    hidden = figure(wrong, None)
    assert "<d>" not in hidden
    assert "<img" not in hidden
    assert "<img" in figure(wrong, np.zeros((4, 4, 3), np.uint8))
    whole = page("<b>", [("x", html_table(pd.DataFrame({"<i>": ["<u>"]})))])
    assert not any(tag in whole for tag in ("<b>", "<i>", "<u>"))
    assert "default-src 'none'" in whole
