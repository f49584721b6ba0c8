import json
from typing import Any

import yaml
from project import ROOT

from commands.affect_ablation import ablations, experiments
from commands.experiment_runs import Settings
from stages.affect.train import Params

DOCUMENT = yaml.safe_load((ROOT / "affect/params.yaml").read_text(encoding="utf-8"))


def with_settings(settings: Settings) -> dict[str, Any]:
    """The whole params.yaml as DVC changes it."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    for name, value in settings.items():
        section = document
        *parents, last = name.split(".")
        for parent in parents:
            section = section[parent]
        assert last in section, name
        section[last] = value
    return document


def test_every_variant_is_a_valid_experiment_of_its_own() -> None:
    for which, number in (("a", 8), ("b", 7)):
        variants = ablations(DOCUMENT)[which].variants
        found = [Params.from_document(with_settings(one)) for one in variants.values()]
        assert len({params.model_dump_json() for params in found}) == len(variants) == number


def test_one_view_is_there_at_equal_epochs_and_at_equal_passes() -> None:
    epochs = {
        name: with_settings(settings)["recipes"]["quick"]["engine"]["epochs"]
        for name, settings in ablations(DOCUMENT)["b"].variants.items()
    }
    assert epochs.pop("single-equal-passes") == 2 * epochs["single"]
    assert len(set(epochs.values())) == 1


def test_an_experiment_has_another_name_with_other_parameters_or_seeds() -> None:
    variants = ablations(DOCUMENT)["a"].variants
    names = experiments(variants, DOCUMENT, [1])
    assert len(set(names.values())) == len(variants)
    assert experiments(variants, DOCUMENT, [1]) == names
    for other in (
        experiments(variants, DOCUMENT, [1, 2]),
        experiments(variants, DOCUMENT | {"folds": [1]}, [1]),
    ):
        assert not set(other.values()) & set(names.values())
