import yaml
from project import ROOT

from commands.affect_ablation import variants
from stages.affect.train import Params

DOCUMENT = yaml.safe_load((ROOT / "affect/params.yaml").read_text(encoding="utf-8"))


def test_every_variant_is_a_valid_experiment_of_its_own() -> None:
    for which, number in (("a", 8), ("b", 7)):
        found = [Params.from_document(one.applied_to(DOCUMENT)) for one in variants(which)]
        dumped = {params.model_dump_json() for params in found}
        assert len(dumped) == len({one.name for one in variants(which)}) == number


def test_one_view_is_there_at_equal_epochs_and_at_equal_passes() -> None:
    epochs = {
        one.name: one.applied_to(DOCUMENT)["recipes"]["quick"]["engine"]["epochs"]
        for one in variants("b")
    }
    assert epochs.pop("single-equal-passes") == 2 * epochs["single"]
    assert len(set(epochs.values())) == 1


def test_the_settings_that_are_compared_are_left_as_they_are() -> None:
    before = yaml.safe_dump(DOCUMENT)
    assert variants("a")[0].applied_to(DOCUMENT)["va_input"] == "both"
    assert yaml.safe_dump(DOCUMENT) == before
