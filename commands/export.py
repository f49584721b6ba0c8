"""A trained model as files for other programs and machines.

    python -m commands.export runs/fold1 --to onnx --out exported/onnx
    python -m commands.export runs/fold1 --to onnx --int8 --out exported/int8
    python -m commands.export runs/fold1 --to folder --out exported/folder
    python -m commands.export runs/fold1 --to huggingface --out exported/encoder

onnx: the whole model for onnxruntime, compared with the saved one on its test clips; what
`commands.predict --model` takes as well. With --int8 its matrices are of 8-bit integers: smaller,
and less exact by an amount that is measured and written down. folder: the torch model with copies
of the modules that it takes. huggingface: the encoder alone, for `VideoMAEModel`.

Every folder has a README.md, a model card: how the files are used, scores with intervals, licences,
and what the model must not be used for. onnx takes an extra:

    python -m pip install -r requirements-export.txt -c constraints.txt

docs/export.md says more.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.common.encoder_weights import read_history
from pipeline.common.files import write_json
from pipeline.export.face_networks import write_face_networks
from pipeline.export.graph import write_int8, write_onnx
from pipeline.export.hugging_face import write_hugging_face
from pipeline.export.model_card import model_card, read_scores
from pipeline.export.standalone import write_standalone
from pipeline.export.trial import Comparison, compare, noise, tested_clips
from pipeline.export.usage import USAGE
from pipeline.mtcae.saved import load_model
from pipeline.serving.models import ExportedModel, ServedModel
from pipeline.serving.onnx_model import CONFIG, MODEL, OUTPUTS
from pipeline.serving.torch_model import TorchModel

# Between ONNX and torch, of probabilities and of places as fractions of the frame. A model that is
# asked about several windows of a frame enlarges them to whole levels of 0 to 255, and what lies
# between two levels may become either.
_TOLERANCE, _TOLERANCE_OF_WINDOWS = 1e-4, 1e-3
_EXAMPLE = Path("pipeline/export/examples/onnx_example.py")


def export(source: Path, to: str, out: Path, *, int8: bool, shards: str | None) -> list[str]:
    """Write a model to a new folder.

    Args:
        source: A folder of runs/, or model.safetensors in it.
        to: `onnx`, `folder` or `huggingface`.
        out: The folder.
        int8: Of `onnx`: whether matrices are of 8-bit integers.
        shards: Of the data set that the model was tested on; data/shards/<dataset> where None.

    Returns:
        What was measured, a sentence each.

    Raises:
        FileNotFoundError: The model is not there.
        ModuleNotFoundError: Of `onnx`: what it takes is not installed.
        ValueError: `out` holds something, the model cannot be exported so, or ONNX says something
            else than the saved model.
    """
    weights = source / "model.safetensors" if source.is_dir() else source
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; name a new folder")
    model, metadata = load_model(weights)
    structure = model.tasks.structure.name
    out.parent.mkdir(parents=True, exist_ok=True)
    checks: list[str] = []
    # The folder appears when it is whole.
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        if to == "onnx":
            checks = _write_onnx(folder, weights, structure, int8=int8, shards=shards)
        elif to == "folder":
            write_standalone(folder, weights)
        else:
            write_hugging_face(folder, model.encoder, read_history(weights))
        card = model_card(metadata, structure, read_scores(weights.parent), USAGE[to], checks)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return checks


def _write_onnx(
    folder: Path, weights: Path, structure: str, *, int8: bool, shards: str | None
) -> list[str]:
    saved = TorchModel(weights, "cpu")
    config: dict[str, Any] = {
        "format": 1,
        "precision": "int8" if int8 else "float32",
        "classes": saved.metadata["classes"],
        "num_frames": saved.num_stored,
        "image_size": saved.image_size,
        "outputs": OUTPUTS[:1] if structure == "stl" else OUTPUTS,
        "metadata": saved.metadata,
    }
    write_json(folder / CONFIG, config)
    sizes = {"num_stored": saved.num_stored, "image_size": saved.image_size}
    write_onnx(folder / MODEL, saved.module, **sizes)
    write_face_networks(folder)
    exported: dict[str, ServedModel] = {"ONNX": ExportedModel(folder)}
    if int8:
        float32 = folder / f"float32_{MODEL}"
        (folder / MODEL).rename(float32)
        write_int8(folder / MODEL, float32)
        exported["int8"] = ExportedModel(folder)
        float32.unlink()
    place = shards or f"data/shards/{saved.metadata['dataset']}"
    batches = tested_clips(weights, place, saved.image_size)
    compared = compare(saved, exported, batches or noise(**sizes))
    allowed = _TOLERANCE if saved.module.num_crops == 1 else _TOLERANCE_OF_WINDOWS
    if compared["ONNX"].difference > allowed:
        raise ValueError(
            f"{compared['ONNX'].in_words('ONNX')} That is more than {allowed:g}: not exported"
        )
    checks = {name: _check(one) for name, one in compared.items()}
    write_json(folder / CONFIG, config | {"checks": checks})
    root = Path(__file__).parents[1]
    shutil.copyfile(root / _EXAMPLE, folder / "example.py")
    pins = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    extra = (root / "requirements-export.txt").read_text(encoding="utf-8").splitlines()
    wanted = ("numpy==", "pillow==", "onnxruntime==")
    lines = [pin for pin in (*pins, *extra) if pin.startswith(wanted)]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [one.in_words(name) for name, one in compared.items()]


def _check(comparison: Comparison) -> dict[str, Any]:
    """For programs."""
    values = comparison._asdict()
    if comparison.uar is not None:
        values["uar"] = dict(zip(("saved", "exported"), comparison.uar, strict=True))
    return values


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="runs/fold1 and the like, or model.safetensors")
    parser.add_argument(
        "--to", required=True, choices=["onnx", "folder", "huggingface"], help="what is written"
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--int8", action="store_true", help="with --to onnx: matrices of 8-bit integers"
    )
    parser.add_argument(
        "--shards",
        help="with --to onnx: the clips that the model was tested on (default: "
        "data/shards/<its data set>); without them, and without predictions.parquet beside the "
        "model, the comparison is on noise",
    )
    args = parser.parse_args(argv)
    if (args.int8 or args.shards) and args.to != "onnx":
        parser.error("--int8 and --shards go with --to onnx")
    try:
        checks = export(args.model, args.to, args.out, int8=args.int8, shards=args.shards)
    except json.JSONDecodeError as error:
        raise SystemExit(f"export: model.json beside the model is damaged: {error}") from error
    except (OSError, ValueError, ModuleNotFoundError) as error:
        raise SystemExit(f"export: {error}") from error
    for line in checks:
        print(line)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB; README.md says how it is used")


if __name__ == "__main__":
    main()
