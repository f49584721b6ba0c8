"""What the parts of the affect models are worth, on the set and folds of affect/params.yaml.

    python -m commands.affect_ablation [--seeds 3] [--only a]

Ablation a: what the encoder starts from x what the head of valence and arousal reads. Ablation b:
one ViT, two views without and with JS divergence, and mask rates; one ViT at equal epochs, and at
equal passes of pictures with twice as many. Every row is a DVC experiment with all its seeds; what
has been run with the present parameters, code and commit is not run again. Tables go to
affect/metrics/.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from commands.experiment_runs import Copied, Settings, run_or_exit, untracked
from commands.experiments import changes, read_file_of
from pipeline.affect.group_table import read_group_table
from pipeline.affect.intervals import GroupSums, differences, intervals, p_values
from pipeline.affect.summary import TITLES, in_words
from pipeline.common.files import atomic_path, sha256_of
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.statistics import holm
from pipeline.tracking.affect import seconds_of_a_training

PARAMS = Path("affect/params.yaml")
METRICS = Path("affect/metrics")
GROUPS = METRICS / "groups.parquet"
# What no variant changes: it is copied and not made again, but for a prior that is another one.
_PREPARED = ("sets", "people", "folds", "prior", "cnn")
# For git: all but results.
_CODE = (":!dvc.lock", ":!metrics", ":!affect/dvc.lock", ":!affect/metrics")
# Of the groups drawn and exchanged.
_SEED = 1


class Ablation(NamedTuple):
    """A table.

    Attributes:
        score: The one of which it gives differences.
        variants: Settings of each row by its name; all are compared with the first.
    """

    score: str
    variants: dict[str, Settings]


def ablations(document: dict[str, Any]) -> dict[str, Ablation]:
    """Both tables, for a whole params.yaml."""
    recipe = document["recipe"]
    engine = f"recipes.{recipe}.engine"
    twice = 2 * document["recipes"][recipe]["engine"]["epochs"]
    one_view: dict[str, str | int | float] = {"system": "single", "cotex.mask_rate": 0.0}
    two_views: dict[str, str | int | float] = {"system": "cotex", "cotex.mask_rate": 0.0}
    read = ("both", "vit_scores", "cnn_scores", "features")
    return {
        "a": Ablation(
            "p_mtl",
            {
                f"{init}-{va_input}": {"system": "emma", "init": init, "va_input": va_input}
                for init in ("rendered", "random")
                for va_input in read
            },
        ),
        "b": Ablation(
            "expression_f1",
            {
                "single": one_view,
                "single-equal-passes": one_view
                | {f"{engine}.epochs": twice, f"{engine}.early_stop": twice},
                "two-views": two_views | {"cotex.js_weight": 0.0},
                **{
                    f"two-views-js-mask{rate:g}": two_views | {"cotex.mask_rate": rate}
                    for rate in (0.0, 0.25, 0.5, 0.75)
                },
            },
        ),
    }


def experiments(
    variants: dict[str, Settings], document: dict[str, Any], seeds: Sequence[int]
) -> dict[str, str]:
    """The name of each variant's experiment; another one for other parameters, code and data."""
    name = document["set"]
    manifests = sorted(Path("data/affect/sets", name).glob("images.parquet"))
    state = [changes(*_CODE), *map(sha256_of, manifests)]
    found = {}
    for variant, settings in variants.items():
        identity = json.dumps([document, settings, list(seeds), state], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        found[variant] = f"affect-{name}-{variant.replace('.', '_')}-{digest}"
    return found


def copied(document: dict[str, Any]) -> Copied:
    """What the copies need: what was prepared, the user's weights and own table."""
    prepared = [Path("data/affect", name) for name in _PREPARED]
    weights = [
        Path("weights", document[section]["weights"]) for section in ("encoder", "frozen_cnn")
    ]
    drawn = document["set"] == "rendered"
    return Copied(
        "affect/dvc.yaml",
        [path for path in [*prepared, *untracked(weights)] if path.exists()],
        None if drawn else document["source"],
        "source",
    )


def run_missing(
    ablation: Ablation, names: dict[str, str], document: dict[str, Any], seeds: Sequence[int]
) -> None:
    """Run the experiments that have not been run.

    Raises:
        SystemExit: One was stopped or failed, or none can run.
    """
    wanted = {
        names[variant]: {
            f"{PARAMS}:{key}": value
            for key, value in {**settings, "seeds": json.dumps(list(seeds))}.items()
        }
        for variant, settings in ablation.variants.items()
    }
    run_or_exit("affect_ablation", wanted, copied(document))


def table_of(ablation: Ablation, names: dict[str, str], set_name: str) -> pd.DataFrame:
    """A row per variant, for people: scores, and the difference to the first row.

    Raises:
        FileNotFoundError: An experiment is not finished.
    """
    sums = {variant: sums_of(name) for variant, name in names.items()}
    first, *others = sums.values()
    key = ablation.score
    chances = holm([p_values(one, first, _SEED)[key] for one in others])
    rows = []
    for (variant, one), chance in zip(sums.items(), [None, *chances], strict=True):
        scores = intervals(one, _SEED)
        row = {"variant": variant}
        for name, title in TITLES.items():
            if scores[name].value == scores[name].value:
                row[title] = in_words(scores[name])
        row[f"{TITLES[key]}, gain"] = (
            "" if chance is None else in_words(differences(one, first, _SEED)[key])
        )
        row["p (Holm)"] = "" if chance is None else f"{chance:.3f}"
        seconds = seconds_of_a_training(set_name, names[variant])
        row["seconds of a training"] = "-" if seconds is None else f"{seconds:.0f}"
        rows.append(row)
    return pd.DataFrame(rows)


def sums_of(name: str) -> list[GroupSums]:
    """What the scores of a finished experiment rest on, of each seed."""
    table = pd.read_parquet(io.BytesIO(read_file_of(name, GROUPS.as_posix())))
    return list(read_group_table(table).values())


def page(which: str, document: dict[str, Any], seeds: Sequence[int], table: pd.DataFrame) -> str:
    """The content of a table's file."""
    return (
        f"# Ablation {which}: {document['set']}, {document['model']}, {document['recipe']}\n\n"
        f"{len(document['folds'])} fold(s), {len(seeds)} seed(s); in brackets 95 % intervals over "
        "groups. Gains are over the first row; their p-values are of a permutation test that "
        f"exchanges whole groups, corrected for {len(table) - 1} comparisons.\n\n"
        f"{markdown_table(table)}\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (1)")
    parser.add_argument("--only", choices=("a", "b"), help="one of the two tables")
    args = parser.parse_args(argv)
    document = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    seeds = list(range(document["seeds"][0], document["seeds"][0] + args.seeds))
    for which, ablation in ablations(document).items():
        if args.only in (None, which):
            names = experiments(ablation.variants, document, seeds)
            run_missing(ablation, names, document, seeds)
            text = page(which, document, seeds, table_of(ablation, names, document["set"]))
            with atomic_path(METRICS / f"ablation_{which}.md") as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(text)


if __name__ == "__main__":
    main()
