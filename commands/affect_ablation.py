"""What the parts of the affect models are worth, on the set and folds of affect/params.yaml.

    dvc repro affect/dvc.yaml && python -m commands.affect_ablation [--seeds 3] [--only a]

Ablation a: what the encoder starts from x what the head of valence and arousal reads. Ablation b:
one ViT, two views without and with JS divergence, and mask rates; one ViT at equal epochs, and at
equal passes of pictures with twice as many. Set, folds and CNN are those that the pipeline has
left. What was trained with the same parameters and data is not trained again; the folder
data/affect/ablation is to be removed where the code has changed. Tables go to affect/metrics/,
runs to MLflow.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from pipeline.affect.intervals import Interval, differences
from pipeline.affect.stored import IMAGES
from pipeline.affect.summary import TITLES, in_words, intervals_of
from pipeline.affect.trainings import Trainings, finite, pool_all, read_trainings
from pipeline.common.encoder_weights import CARD
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.evaluation.markdown import markdown_table
from pipeline.tracking.affect import log_trainings

PARAMS = Path("affect/params.yaml")
DATA, OUT = Path("data/affect"), Path("data/affect/ablation")
METRICS = Path("affect/metrics")
_DONE = "done.json"


class Variant(NamedTuple):
    """One row of a table.

    Attributes:
        name: Safe in a path.
        choices: Lines on top of params.yaml that are other ones.
        cotex: Settings of cotex that are other ones.
        epochs: Times as many as the recipe's.
    """

    name: str
    choices: dict[str, str]
    cotex: dict[str, float] = {}  # noqa: RUF012
    epochs: int = 1

    def applied_to(self, document: dict[str, Any]) -> dict[str, Any]:
        """A whole params.yaml."""
        changed = document | self.choices
        changed["cotex"] = document["cotex"] | self.cotex
        recipe = document["recipes"][document["recipe"]]
        number = self.epochs * recipe["engine"]["epochs"]
        engine = recipe["engine"] | {"epochs": number, "early_stop": number}
        changed["recipes"] = {document["recipe"]: recipe | {"engine": engine}}
        return changed


def variants(which: str) -> list[Variant]:
    """The rows of a table; the first one is what the others are compared with."""
    if which == "a":
        return [
            Variant(f"{init}-{va_input}", {"system": "emma", "init": init, "va_input": va_input})
            for init in ("rendered", "random")
            for va_input in ("both", "vit_scores", "cnn_scores", "features")
        ]
    two = {"system": "cotex"}
    return [
        Variant("single", {"system": "single"}, {"mask_rate": 0.0}),
        Variant("single-equal-passes", {"system": "single"}, {"mask_rate": 0.0}, epochs=2),
        Variant("two-views", two, {"mask_rate": 0.0, "js_weight": 0.0}),
        *(Variant(f"two-views-js-mask{rate:g}", two, {"mask_rate": rate}) for rate in (0, 0.25)),
        *(Variant(f"two-views-js-mask{rate:g}", two, {"mask_rate": rate}) for rate in (0.5, 0.75)),
    ]


def run_variant(variant: Variant, document: dict[str, Any], seeds: list[int]) -> float:
    """Train what is missing of a variant; the seconds of all its trainings.

    Raises:
        SystemExit: A training failed; it has said why.
    """
    changed = variant.applied_to(document)
    folder = OUT / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    params = folder / "params.yaml"
    with atomic_path(params) as temporary:
        temporary.write_text(yaml.safe_dump(changed), encoding="utf-8")
    prior = DATA / "prior"
    if changed["init"] != document["init"]:
        prior = OUT / f"prior-{changed['init']}"
        people, weights = DATA / "people", Path("weights") / changed["encoder"]["weights"]
        _call("prior", people, weights, prior, "--params", params)
    name = changed["set"]
    inputs = [DATA / "sets" / name, DATA / f"folds/{name}.csv", prior, DATA / "cnn"]
    files = (inputs[0] / IMAGES, inputs[1], prior / CARD, inputs[3] / CARD)
    key = [sha256_of(params), *map(sha256_of, files)]
    seconds = 0.0
    for seed in seeds:
        for fold in document["folds"]:
            out = folder / f"fold{fold}-seed{seed}"
            done = out / _DONE
            known = json.loads(done.read_text(encoding="utf-8")) if done.is_file() else {}
            if known.get("key") != key:
                start = time.perf_counter()
                _call("train", fold, seed, *inputs, out, "--params", params)
                known = {"key": key, "seconds": time.perf_counter() - start}
                write_json(done, known)
            seconds += float(known["seconds"])
    return seconds


def _call(stage: str, *arguments: object) -> None:
    command = [sys.executable, "-m", f"stages.affect.{stage}", *map(str, arguments)]
    if status := subprocess.call(command):
        raise SystemExit(status)


def table_of(which: str, document: dict[str, Any], seeds: list[int]) -> pd.DataFrame:
    """Run the variants of a table, and what they came to."""
    rows, first = [], None
    for number, variant in enumerate(variants(which), start=1):
        print(f"{variant.name}: {number} of {len(variants(which))}", flush=True)
        seconds = run_variant(variant, document, seeds)
        files: Trainings = read_trainings(OUT / variant.name, seeds, document["folds"])
        found = pool_all(files)
        count = len(found.classes)
        scores = intervals_of(found.model, count)
        sums = [one.sums(count) for one in found.model]
        first = first or sums
        key = "p_mtl" if which == "a" else "expression_f1"
        gain = differences(sums, first, seed=1)[key]
        digest = sha256_of(DATA / "sets" / document["set"] / IMAGES)
        values = {name: one.value for name, one in scores.items()}
        log_trainings(files, finite(values), digest, [])
        rows.append(row_of(variant, scores, gain, key, seconds))
    return pd.DataFrame(rows)


def row_of(
    variant: Variant, scores: dict[str, Interval], gain: Interval, key: str, seconds: float
) -> dict[str, str]:
    """A row for people; `gain` is over the first row."""
    shown = {
        title: in_words(scores[name])
        for name, title in TITLES.items()
        if scores[name].value == scores[name].value
    }
    return {
        "variant": variant.name,
        **shown,
        f"{TITLES[key]}, gain": in_words(gain),
        "seconds": f"{seconds:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (1)")
    parser.add_argument("--only", choices=("a", "b"), help="one of the two tables")
    args = parser.parse_args()
    document = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    seeds = list(range(document["seeds"][0], document["seeds"][0] + args.seeds))
    for which in [args.only] if args.only else ["a", "b"]:
        table = table_of(which, document, seeds)
        METRICS.mkdir(parents=True, exist_ok=True)
        text = (
            f"# Ablation {which}: {document['set']}, {document['model']}, {document['recipe']}\n\n"
            f"{len(document['folds'])} fold(s), {len(seeds)} seed(s); in brackets 95 % intervals "
            f"over groups; gains are over the first row.\n\n{markdown_table(table)}\n"
        )
        with atomic_path(METRICS / f"ablation_{which}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
