"""Stage people of the affect models: rendered people for prior and CNN, who are never tested."""

import argparse
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt

from pipeline.affect.labels import EXPRESSIONS
from pipeline.affect.people import draw_people
from pipeline.affect.rendered_plan import Settings
from pipeline.affect.stored import SetCard, write_card, write_drawn
from pipeline.common.params import Preset, StageParams, load_params


class Params(StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    people: Settings
    stored_side: Annotated[PositiveInt, Preset("models", chosen_by="model", key="stored_side")]


def main(params: Params, out: Path) -> None:
    images, pixels = draw_people(params.people, params.stored_side)
    write_drawn(out, images, pixels)
    identity = f"rendered, seed {params.people.seed}"
    write_card(out, SetCard(identity=identity, classes=EXPRESSIONS, side=params.stored_side))
    print(f"people: {len(images)} pictures of {params.people.num_videos} rendered people")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(load_params(Params, Path("affect/params.yaml")), args.out)
