"""How much a frozen encoder tells of expressions: heads on its tokens, for several encoders.

    python -m commands.probe --weights from_scratch pretrained.safetensors marlin-base

trains the heads of `--arch` on the tokens of the data set of params.yaml, with each encoder alike:
the same folds, seeds and recipe. The table has the UAR of every encoder with its interval over
subjects, and its difference to the first one. `from_scratch` is a random encoder, another one for
every seed. The recipe must change no clip: it is `paper` unless another one is named.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import yaml

from commands.pages import show_page
from commands.probing import Params, Probe
from commands.start_table import rests_on, start_table
from pipeline.acquire.http import DownloadFailed
from pipeline.acquire.weights import provide
from pipeline.common.hosts import RetryPolicy
from pipeline.evaluation.comparison import System


def table_of(systems: Sequence[System], baselines: pd.DataFrame, params: Params) -> str:
    """The encoders in Markdown, the first one of them the reference."""
    table = start_table(systems, params.classes, dict.fromkeys(systems[0].seeds, baselines))
    return (
        f"Frozen encoders, {params.structure.name} heads, recipe {params.recipe}, model "
        f"{params.model}, on {params.dataset}: {rests_on(systems, len(params.folds))}\n\n{table}\n"
    )


def starts(
    names: Sequence[str], document: dict[str, object], scratch: Path, *, accept_licence: bool
) -> Iterator[tuple[str, Path]]:
    """Every name with its folder of weights, fetched where it has to be."""
    source = document["encoder"]
    assert isinstance(source, dict)
    for name in names:
        folder = scratch / "weights" / name
        provide(
            Path("weights") / name,
            folder,
            Path("downloads/weights"),
            accept_licence=accept_licence,
            policy=RetryPolicy(),
            hugging_face=source["hugging_face"],
        )
        yield name, folder


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", nargs="+", required=True, help="as encoder.weights has them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    for name in ("dataset", "model"):
        parser.add_argument(f"--{name}", help="else that of params.yaml")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--arch", default="stl")
    parser.add_argument("--decoder", default="vit")
    parser.add_argument("--accept-licence", action="store_true", help="of the weights")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args(argv)
    document = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for name in ("dataset", "model", "recipe", "arch", "decoder"):
        document[name] = getattr(args, name) or document[name]
    with tempfile.TemporaryDirectory(dir=args.data) as folder:
        scratch = Path(folder)
        try:
            params = Params.from_document(document)
            probe = Probe(params, args.data, args.seeds, scratch)
            found = starts(args.weights, document, scratch, accept_licence=args.accept_licence)
            systems = [probe.system(start, name) for name, start in found]
        except (DownloadFailed, PermissionError, FileNotFoundError, ValueError) as error:
            raise SystemExit(f"probe: {error}") from error
    baselines = pd.read_parquet(args.data / "baselines" / f"{params.dataset}.parquet")
    page = table_of(systems, baselines, params)
    show_page(page, args.out)


if __name__ == "__main__":
    main()
