"""The structures that are compared, by the words of params.yaml.

Source: MTCAE-DFER, Table I.
"""

from typing import NamedTuple


class Structure(NamedTuple):
    """One row of Table I; `decoder` means nothing where arch is stl."""

    arch: str
    decoder: str


STRUCTURES = (
    Structure("stl", "vit"),
    Structure("non_fully_shared", "mlp"),
    Structure("non_fully_shared", "vit"),
    Structure("fully_shared", "mlp"),
    Structure("fully_shared", "vit"),
    Structure("cascaded", "vit"),
)


def structure_name(arch: str, decoder: str | None) -> str:
    """How a structure is called in tables: `stl`, `fully_shared vit` and so on."""
    return arch if arch == "stl" else f"{arch} {decoder}"
