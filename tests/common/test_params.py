import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from pipeline.common.params import Preset, Section, StageParams, load_params


class Size(Section):
    width: PositiveInt
    dropout: Annotated[float, Field(ge=0, le=1)]


class Params(StageParams):
    seed: NonNegativeInt
    size: Annotated[Size, Preset("sizes", chosen_by="model")]
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "dataset": "sample",
        "model": "tiny",
        "seed": 1,
        "other_stages": {"anything": True},
        "datasets": {
            "sample": {"classes": ["sad"], "videos": None},
            "custom": {"videos": "videos"},
        },
        "sizes": {"tiny": {"width": 8, "dropout": 0.1}, "large": {"width": 64, "dropout": 0.3}},
    }


class NestedParams(StageParams):
    precision: Annotated[str, Preset("recipes", chosen_by="recipe", key="engine.precision")]
    rate: Annotated[float, Preset("recipes", chosen_by="recipe", key="engine.optimizer.rate")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "params.yaml"


def load(document: dict[str, Any], path: Path) -> Params:
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_params(Params, path)


def test_the_chosen_preset_is_read_and_the_others_are_not(
    document: dict[str, Any], path: Path
) -> None:
    document["sizes"]["large"]["width"] = "nonsense"
    params = load(document, path)
    assert params == Params(seed=1, size=Size(width=8, dropout=0.1), classes=["sad"])


def test_another_choice_reads_another_preset(document: dict[str, Any], path: Path) -> None:
    assert load(document | {"model": "large"}, path).size == Size(width=64, dropout=0.3)


def test_an_unknown_key_is_an_error_that_names_it(document: dict[str, Any], path: Path) -> None:
    document["sizes"]["tiny"]["witdh"] = 9
    with pytest.raises(
        SystemExit, match=r"params\.yaml is not valid:\n  size\.witdh: Extra inputs"
    ):
        load(document, path)


def test_an_unknown_choice_lists_the_known_ones(document: dict[str, Any], path: Path) -> None:
    with pytest.raises(SystemExit, match=r"model is 'huge'; known are large, tiny"):
        load(document | {"model": "huge"}, path)


def test_a_choice_that_is_not_made_is_an_error(document: dict[str, Any], path: Path) -> None:
    del document["model"]
    with pytest.raises(SystemExit, match="model is None; known are"):
        load(document, path)


def test_a_preset_without_its_key_is_an_error(document: dict[str, Any], path: Path) -> None:
    with pytest.raises(SystemExit, match=r"datasets\.custom has no 'classes'"):
        load(document | {"dataset": "custom"}, path)


NESTED = {"engine": {"precision": "32-true", "optimizer": {"rate": 0.1}}, "epochs": 30}


def load_nested(preset: Any, path: Path) -> NestedParams:
    document = {"recipe": "quick", "recipes": {"quick": preset, "full": NESTED}}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_params(NestedParams, path)


def test_a_key_with_dots_is_an_entry_further_down_in_the_preset(path: Path) -> None:
    assert load_nested(NESTED, path) == NestedParams(precision="32-true", rate=0.1)
    assert NestedParams.dvc_names() == [
        "recipes.${recipe}.engine.precision",
        "recipes.${recipe}.engine.optimizer.rate",
    ]


@pytest.mark.parametrize(
    ("preset", "missing"),
    [
        ({"engine": {"optimizer": {"rate": 0.1}}}, "engine.precision"),
        ({"precision": "32-true", "engine.precision": "32-true"}, "engine.precision"),
        ({"engine": "precision"}, "engine.precision"),
        ({"engine": None}, "engine.precision"),
        (None, "engine.precision"),
        ({"engine": {"precision": "32-true", "optimizer": 0.1}}, "engine.optimizer.rate"),
    ],
)
def test_a_preset_without_a_part_of_the_dotted_key_is_an_error(
    preset: Any, missing: str, path: Path
) -> None:
    with pytest.raises(SystemExit, match=re.escape(f"recipes.quick has no '{missing}'")):
        load_nested(preset, path)


def test_every_bad_value_is_named_at_once(document: dict[str, Any], path: Path) -> None:
    del document["seed"]
    document["sizes"]["tiny"] = {"width": 0, "dropout": 1.5}
    with pytest.raises(SystemExit) as error:
        load(document, path)
    message = str(error.value)
    assert "seed: Field required" in message
    assert "size.width: Input should be greater than 0" in message
    assert "size.dropout: Input should be less than or equal to 1" in message


def test_parameters_cannot_be_changed(document: dict[str, Any], path: Path) -> None:
    params = load(document, path)
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 2
    with pytest.raises(ValidationError, match="frozen"):
        params.size.width = 9


def test_dvc_names_are_the_params_of_the_stage_in_dvc_yaml() -> None:
    assert Params.dvc_names() == ["seed", "sizes.${model}", "datasets.${dataset}.classes"]


@pytest.mark.parametrize(
    "text", ["", "- a list", "model: [tiny]\nsizes: {tiny: {}}", "model: tiny\nsizes:", "a: [1"]
)
def test_a_file_of_another_shape_is_an_error_and_no_crash(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"params\.yaml"):
        load_params(Params, path)
