"""Which encoder is the best on my data: heads on the frozen tokens of several, side by side.

    python -m commands.encoders --weights from_scratch marlin-base vjepa2-large mine.pt=base

computes the tokens of every clip once with each encoder, and trains the decoders of params.yaml
(or of `--arch`, `--decoder`, `--model`) on them: the same decoders, folds, seeds and recipe for
all. The table has the UAR of every encoder with its interval over subjects, its difference to the
first one, what it costs, its licence and what it has seen. `from_scratch` is a random encoder,
another one for every seed. The size of published weights is known; a file of your own has that of
`model`, unless `=` names another preset. The recipe must change no clip: it is `paper` unless
another one is named. What fine-tuning gains is another question: `python -m commands.starts`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from commands.encoder_starts import Cost, Start, facts, starts
from commands.pages import show_page
from commands.probing import Params, Probe
from commands.start_table import rests_on, start_table
from pipeline.acquire.http import DownloadFailed
from pipeline.evaluation.comparison import System


def page_of(
    found: Sequence[tuple[Start, System, Cost]], baselines: pd.DataFrame, params: Params
) -> str:
    """The encoders in Markdown, the first one of them the reference."""
    systems = [system for _, system, _ in found]
    table = start_table(
        systems,
        params.classes,
        dict.fromkeys(systems[0].seeds, baselines),
        {start.name: facts(start, cost) for start, _, cost in found},
    )
    return (
        f"Frozen encoders, {params.structure.name} decoders of model {params.model}, recipe "
        f"{params.recipe}, on {params.dataset}: {rests_on(systems, len(params.folds))}\n\n{table}\n"
        f"\nSeconds to read, encode and store a clip ({found[0][2].device}), megabytes of its "
        "stored tokens: once for all folds, structures and seeds.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", nargs="+", required=True, help="as encoder.weights has them")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the experiments (1 2 3)"
    )
    for name in ("dataset", "model", "arch", "decoder"):
        parser.add_argument(f"--{name}", help="else that of params.yaml")
    parser.add_argument(
        "--recipe", default="paper", help="a preset with a frozen encoder (%(default)s)"
    )
    parser.add_argument("--accept-licence", action="store_true", help="of the weights")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data (%(default)s)"
    )
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
            accepted = args.accept_licence or document["encoder"]["accept_licence"]
            wanted = starts(args.weights, document, scratch, accept_licence=accepted)
            found = [(start, *probe.system(start)) for start in wanted]
            baselines = pd.read_parquet(args.data / "baselines" / f"{params.dataset}.parquet")
            page = page_of(found, baselines, params)
        except (DownloadFailed, PermissionError, FileNotFoundError, ValueError) as error:
            raise SystemExit(f"encoders: {error}") from error
    show_page(page, args.out)


if __name__ == "__main__":
    main()
