"""The structures that are compared, and the choices of an experiment, by the words of params.yaml.

Source: MTCAE-DFER, Table I.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from pydantic import NonNegativeInt

from pipeline.common.params import Section

Arch = Literal["stl", "non_fully_shared", "fully_shared", "cascaded"]
Decoder = Literal["vit", "mlp"]


class Structure(NamedTuple):
    """One row of Table I; `decoder` means nothing where arch is stl."""

    arch: str
    decoder: str

    @property
    def name(self) -> str:
        """How it is called in tables: `stl`, `fully_shared vit` and so on."""
        return self.arch if self.arch == "stl" else f"{self.arch} {self.decoder}"


STRUCTURES = (
    Structure("stl", "vit"),
    Structure("non_fully_shared", "mlp"),
    Structure("non_fully_shared", "vit"),
    Structure("fully_shared", "mlp"),
    Structure("fully_shared", "vit"),
    Structure("cascaded", "vit"),
)


def structure_of(arch: Arch, decoder: Decoder) -> Structure:
    """The row of Table I that these choices belong to."""
    return Structure(arch, "vit" if arch == "stl" else decoder)


class Choices(Section):
    """What tells one experiment from another: the choices on top of params.yaml."""

    dataset: str
    arch: Arch
    decoder: Decoder
    model: str
    recipe: str
    seed: NonNegativeInt

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Those of a whole params.yaml."""
        return cls.model_validate({name: params[name] for name in cls.model_fields})

    @property
    def choices(self) -> "Choices":
        """Themselves alone, without what a stage's parameters add."""
        return Choices(**{name: getattr(self, name) for name in Choices.model_fields})

    @property
    def structure(self) -> Structure:
        """The row of Table I that the experiment belongs to."""
        return structure_of(self.arch, self.decoder)
