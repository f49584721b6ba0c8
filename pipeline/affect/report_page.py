"""One page about an experiment: its tables, and the pictures that are most wrong.

The page is one file: no scripts and nothing from elsewhere. Names come from strangers' tables; all
text is escaped.
"""

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.affect.stored import Picture

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = "body{font:15px sans-serif;max-width:70em;margin:2em auto}td,th{padding:.2em .7em;"
_STYLE += "text-align:left;border-bottom:1px solid #ccc}table{border-collapse:collapse}"
_STYLE += "figure{display:inline-block;margin:.4em;width:12em;vertical-align:top}"


class WrongPicture(NamedTuple):
    """A picture, and what is wrong about it, the worst first.

    Attributes:
        image: Its id.
        wrong: In words.
        size: The larger, the worse.
    """

    image: str
    wrong: str
    size: float


def most_wrong(predictions: pd.DataFrame, most: int) -> dict[str, list[WrongPicture]]:
    """The worst pictures by expression, and by valence and arousal.

    Args:
        predictions: Of the test pictures of all folds.
        most: Of either kind.
    """
    found: dict[str, list[WrongPicture]] = {"expression": [], "valence and arousal": []}
    named = predictions[predictions["actual"].notna()]
    for row in named[named["actual"] != named["predicted"]].to_dict("records"):
        sure = float(row[f"probability_{row['predicted']}"])
        words = f"{row['actual']}, said to be {row['predicted']} with {sure:.0%}"
        found["expression"].append(WrongPicture(str(row["image"]), words, sure))
    columns = ["valence", "arousal"]
    known = predictions.dropna(subset=[f"actual_{name}" for name in columns])
    for row in known.to_dict("records"):
        pairs = [(row[f"actual_{name}"], row[f"predicted_{name}"]) for name in columns]
        distance = float(np.hypot(*(one - other for one, other in pairs)))
        words = ", ".join(
            f"{name} {one:.2f}, said {other:.2f}"
            for name, (one, other) in zip(columns, pairs, strict=True)
        )
        found["valence and arousal"].append(WrongPicture(str(row["image"]), words, distance))
    return {
        kind: sorted(wrong, key=lambda one: (-one.size, one.image))[:most]
        for kind, wrong in found.items()
    }


def html_table(table: pd.DataFrame) -> str:
    """A table with its headings."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    rows = [
        "".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in table.values.tolist()
    ]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def figure(wrong: WrongPicture, picture: Picture | None) -> str:
    """A picture with what is wrong about it; without it where faces are not to be shown."""
    image = f"<img src='data:image/png;base64,{_png(picture)}'>" if picture is not None else ""
    return (
        f"<figure>{image}<figcaption>{escape(wrong.image)}: {escape(wrong.wrong)}"
        "</figcaption></figure>"
    )


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page; sections are a heading and what stands below it, in HTML."""
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        *(f"<h2>{escape(heading)}</h2>\n{content}" for heading, content in sections),
    ]
    return "\n".join(parts) + "\n"


def _png(picture: Picture) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).resize((112, 112), Image.Resampling.BICUBIC).save(stream, "PNG")
    return b64encode(stream.getvalue()).decode()
