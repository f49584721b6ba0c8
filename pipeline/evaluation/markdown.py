"""Tables in Markdown."""

import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """The columns of a table as Markdown, without its index; what is missing is a dash."""
    cells = table.astype(object).where(table.notna(), "-").astype(str)
    rows = [list(map(str, table.columns)), *cells.values.tolist()]
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(table.columns), *lines[1:]])


def _cell(text: str) -> str:
    """A text that stays in its cell and is no markup, whatever a user's names hold."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())
