"""What commands have in common: the shards that they read, and the page that they print."""

from pathlib import Path

from pipeline.common.files import atomic_path
from pipeline.store.contents import CLIPS
from pipeline.store.folders import Shards, open_shards


def shards_of(command: str, dataset: str, data: Path, place: str | None) -> Shards:
    """The shards of a data set, for the command of that name.

    Args:
        command: Which one.
        dataset: Of the shards.
        data: The folder of all data.
        place: Where they are instead, a folder or an address.

    Raises:
        SystemExit: There are none; the message says how to make them.
    """
    try:
        shards = open_shards(place or str(data / "shards" / dataset))
        with shards.open(CLIPS):
            return shards
    except FileNotFoundError as error:
        raise SystemExit(
            f"{command}: there are no shards of {dataset} ({error}); make them with "
            f"`dvc exp run -S dataset={dataset} label`"
        ) from error
    except (ConnectionError, ValueError) as error:
        raise SystemExit(f"{command}: {error}") from error


def show_page(page: str, out: Path | None) -> None:
    """Print a page, and write it to a file where one is wanted."""
    if out:
        with atomic_path(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    print(page, end="")
