"""The encoder weights that can be named in `encoder.weights`.

    python -m commands.weights

prints them with their size, licence and what they were trained on.
"""

import argparse
from pathlib import Path

import pandas as pd

from pipeline.acquire.weights import cards
from pipeline.evaluation.markdown import markdown_table


def table(folder: Path) -> str:
    """The cards of a folder as a table of Markdown."""
    rows = [
        {
            "encoder.weights": name,
            "model": card.model,
            "family": card.family,
            "trained on": card.trained_on,
            "licence": card.licence + (" (to be accepted)" if card.accept_licence else ""),
            "MB": f"{card.size / 1e6:.0f}" if card.size else "?",
            "comes": "by itself" if card.repository or card.address else f"by hand: {card.page}",
        }
        for name, card in cards(folder).items()
    ]
    return markdown_table(pd.DataFrame(rows))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(table(Path("weights")))


if __name__ == "__main__":
    main()
