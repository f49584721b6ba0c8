import pytest
import yaml
from project import ROOT
from pydantic import ValidationError

from pipeline.mtcae.structures import STRUCTURES, Choices, Structure

WORDS = {
    "dataset": "sample",
    "arch": "cascaded",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "seed": 1,
}


class MoreThanChoices(Choices):
    num_frames: int


def test_a_structure_is_called_by_its_words_and_stl_has_no_decoder() -> None:
    assert [structure.name for structure in STRUCTURES] == [
        "stl",
        "non_fully_shared mlp",
        "non_fully_shared vit",
        "fully_shared mlp",
        "fully_shared vit",
        "cascaded vit",
    ]
    assert Structure("stl", "mlp").name == "stl"


def test_choices_are_found_in_the_whole_of_params_yaml() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    choices = {name: params[name] for name in WORDS}
    assert Choices.of(params).model_dump() == choices


def test_choices_are_the_same_without_what_a_stage_adds() -> None:
    choices = MoreThanChoices.model_validate({**WORDS, "num_frames": 16}).choices
    assert type(choices) is Choices
    assert choices.model_dump() == WORDS


@pytest.mark.parametrize(
    ("arch", "decoder", "row"),
    [
        ("cascaded", "vit", Structure("cascaded", "vit")),
        ("fully_shared", "mlp", Structure("fully_shared", "mlp")),
        ("stl", "vit", Structure("stl", "vit")),
        ("stl", "mlp", Structure("stl", "vit")),
    ],
)
def test_an_experiment_belongs_to_a_row_of_table_one(
    arch: str, decoder: str, row: Structure
) -> None:
    assert Choices.of({**WORDS, "arch": arch, "decoder": decoder}).structure == row


@pytest.mark.parametrize(("name", "value"), [("arch", "cascade"), ("decoder", "cnn"), ("seed", -1)])
def test_a_choice_that_does_not_exist_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Choices.of({**WORDS, name: value})
