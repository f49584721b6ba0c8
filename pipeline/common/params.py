"""Typed parameters of a stage, and the one reader of params.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A part of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Preset:
    """Marks a field that holds the preset which another parameter chooses.

    `Annotated[ModelSize, Preset("models", chosen_by="model")]` reads `models.<value of model>`, and
    with `key` one entry of that preset, such as `engine.precision`. In dvc.yaml the same field is
    written `models.${model}`.
    """

    section: str
    chosen_by: str
    key: str | None = None

    def dvc_name(self) -> str:
        """How dvc.yaml spells this parameter."""
        name = f"{self.section}.${{{self.chosen_by}}}"
        return f"{name}.{self.key}" if self.key else name

    def value(self, document: dict[str, Any]) -> Any:
        """The chosen preset (or its `key`) out of a whole params.yaml.

        Raises:
            ValueError: The choice names no preset, or the preset lacks the key.
        """
        presets = document.get(self.section) or {}
        choice = document.get(self.chosen_by)
        if not isinstance(choice, str) or choice not in presets:
            known = ", ".join(map(str, presets))
            raise ValueError(f"{self.chosen_by} is {choice!r}; known are {known}")
        preset = presets[choice] or {}
        for part in self.key.split(".") if self.key else ():
            if not isinstance(preset, dict) or part not in preset:
                raise ValueError(f"{self.section}.{choice} has no {self.key!r}")
            preset = preset[part]
        return preset


class StageParams(Section):
    """Base of a stage's parameters: its fields are exactly the stage's `params` in dvc.yaml."""

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """The fields that are filled from a preset."""
        return {
            name: mark
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Preset)
        }

    @classmethod
    def dvc_names(cls) -> list[str]:
        """The `params` entry that dvc.yaml must hold for this stage."""
        presets = cls.presets()
        return [presets[name].dvc_name() if name in presets else name for name in cls.model_fields]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Pick and check this stage's fields out of a whole params.yaml."""
        presets = cls.presets()
        values = {
            name: presets[name].value(document) if name in presets else document[name]
            for name in cls.model_fields
            if name in presets or name in document
        }
        return cls.model_validate(values)


P = TypeVar("P", bound=StageParams)


def load_params(kind: type[P], path: Path = Path("params.yaml")) -> P:
    """Read a stage's parameters from params.yaml.

    Raises:
        SystemExit: A parameter is missing, unknown or out of range; the message names each.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("it holds no named parameters")
        return kind.from_document(document)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors()
        ]
        raise SystemExit("\n".join([f"{path} is not valid:", *lines])) from error
    except (ValueError, yaml.YAMLError) as error:
        raise SystemExit(f"{path} cannot be used: {error}") from error
