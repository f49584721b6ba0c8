"""Stage look of pre-training: reconstructions of held-out samples, epoch by epoch, as a page."""

import argparse
import json
from html import escape
from pathlib import Path
from shutil import copyfile
from typing import Any

import pandas as pd

from pipeline.common.files import atomic_path
from pipeline.common.params import Section, StageParams, load_params
from pipeline.tracking.observer import log_pictures
from pipeline.tracking.pretraining import PretrainingExperiment

# In the folder of a pre-training.
LOOK, PARAMETERS = "look", "parameters.json"


class ReportParams(Section):
    """Whether MLflow gets the pictures too, which may show faces."""

    frames: bool


class Params(StageParams):
    """Exactly this stage's `params` in pretrain/dvc.yaml."""

    report: ReportParams


def main(params: Params, pretrained: Path, history: Path, out: Path) -> None:
    pictures = sorted((pretrained / LOOK).glob("epoch*.png"))
    out.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        copyfile(picture, out / picture.name)
    described = json.loads((pretrained / PARAMETERS).read_text(encoding="utf-8"))
    rows = pd.read_csv(history).set_index("epoch")
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page(described, rows, pictures), encoding="utf-8")
    if params.report.frames:
        log_pictures(PretrainingExperiment.of(described["training"], described["data_digest"]), out)
    print(f"look: {len(pictures)} epochs in {out / 'index.html'} (with faces: keep it to yourself)")


def page(described: dict[str, Any], rows: pd.DataFrame, pictures: list[Path]) -> str:
    """A page of all pictures, the last epoch first."""
    training = described["training"]
    title = " ".join(str(training[name]) for name in ("method", "model", "data", "recipe"))
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f"<title>{escape(title)}</title><h1>{escape(title)}</h1>",
        "<p>Held-out samples: what there is, what the encoder sees, and what the model makes of "
        "the hidden parts. 1 is the error of a model that knows nothing.</p>",
    ]
    for picture in reversed(pictures):
        epoch = int(picture.stem.removeprefix("epoch"))
        loss = float(rows["validation_loss"].loc[epoch])
        parts.append(f"<h2>Epoch {epoch}: {loss:.4f}</h2><img src='{picture.name}'>")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pretrained", type=Path, help="folder of the trained autoencoder")
    parser.add_argument("history", type=Path, help="its history")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    params = load_params(Params, Path("pretrain/params.yaml"))
    main(params, args.pretrained, args.history, args.out)
