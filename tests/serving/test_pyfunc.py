import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from mlflow import MlflowClient
from project import ROOT
from small import LOSS, NEW, task_model, video_encoder

from pipeline.common.clips import Clip
from pipeline.common.frames import FaceSettings, FaceTrack, FrameSettings
from pipeline.common.imports import needed_files
from pipeline.datasets.sample_faces import render_frames, sample_clips, write_video
from pipeline.feed.loader import load_in_order
from pipeline.mtcae.predictions import evaluate, predictions_table
from pipeline.mtcae.saved import save_model
from pipeline.serving.answers import columns
from pipeline.serving.pyfunc import VideoModel
from pipeline.serving.torch_model import TorchModel
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.names import AGGREGATED
from pipeline.tracking.observer import FoldFiles, log_experiment, track_fold
from pipeline.tracking.packaging import PACKAGES, package_model
from pipeline.video.reader import FrameReader

CLASSES = ["happy", "neutral", "sad"]
# No value is that of params.yaml.
FRAMES = FrameSettings(
    num_frames=4,
    segments=1,
    size=64,
    sampling="stride",
    clock="frame",
    crop="face",
    margin=2,
    level=True,
    jpeg_quality=60,
)
FACES = FaceSettings(min_face_size=30, max_jump=1, max_gap=1, min_detected=0.1)
PROBABILITIES = [f"probability_{name}" for name in CLASSES]
PYFUNC = Path("pipeline/serving/pyfunc.py")
# Packages that are called otherwise where they are installed than where they are imported.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "PyYAML",
}
CHOICES: dict[str, str | int] = {
    "dataset": "sample",
    "arch": "stl",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "seed": 1,
}
EXPERIMENT = TrackedExperiment(CHOICES, {}, "0" * 64)


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model puts its code first on the path, where later tests would find it."""
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose probabilities differ from video to video."""
    torch.manual_seed(0)
    encoder = video_encoder(
        dim=24, depth=1, num_heads=2, image_size=32, patch_size=16, num_frames=4
    )
    model = task_model(encoder, arch="stl", decoder="vit", num_classes=len(CLASSES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("fold1") / "model.safetensors"
    metadata = {
        "classes": CLASSES,
        "frames": FRAMES.model_dump(),
        "faces": FACES.model_dump(),
        "recipes": {"evaluation": {"crops": 1}},
        "clip_seconds": 1.6,
    }
    save_model(path, model, metadata=metadata, history=NEW)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two people, who show different things."""
    folder = tmp_path_factory.mktemp("videos")
    clips = sample_clips(num_subjects=2, clips_per_emotion=1)
    chosen = [clips[0], clips[-1]]
    paths = [folder / f"{clip.emotion}{clip.subject}.mp4" for clip in chosen]
    for clip, path in zip(chosen, paths, strict=True):
        write_video(render_frames(clip, seed=1), path, imageio_ffmpeg.get_ffmpeg_exe())
    return paths


@pytest.fixture(scope="module")
def expected(
    weights: Path, videos: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    """What the stages predict for these videos: strips, a shard, batches, the test of a fold."""
    folder = tmp_path_factory.mktemp("shards")
    clips = []
    for path in videos:
        video = FrameReader(FRAMES, FACES).read(path)
        track = FaceTrack(
            np.zeros((4, 4), np.float32), np.zeros((4, 5, 2), np.float32), np.ones(4, np.bool_)
        )
        clips.append(
            (Clip(path.stem, path.name, "s", "sad"), encode_strip(video.pictures, 60), track)
        )
    source = StoredFrames(
        LocalShards(folder), write_shards(folder, clips), classes=CLASSES, image_size=32
    )
    batches = load_in_order(source, batch_size=2)
    model = VideoModel(weights).predictor.models[0]
    assert isinstance(model, TorchModel)
    tested = evaluate(Fabric(accelerator="cpu", devices=1), model.module, batches, LOSS)
    return (
        predictions_table(tested, 1, CLASSES).set_index("clip").loc[[path.stem for path in videos]]
    )


def table(videos: list[Path]) -> pd.DataFrame:
    return pd.DataFrame({"video": [str(path) for path in videos]})


@pytest.fixture(scope="module")
def package(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "model"
    package_model(weights, folder)
    return folder


def test_a_served_model_predicts_what_the_test_of_its_fold_did(
    package: Path, videos: list[Path], expected: pd.DataFrame
) -> None:
    predicted = mlflow.pyfunc.load_model(str(package)).predict(table(videos))
    assert list(predicted.columns) == ["video", *columns(CLASSES, 1), "problem"]
    # Every moment of a clip has the label of its only window.
    assert list(predicted["video"]) == [str(path) for path in videos for _ in range(4)]
    wanted = expected.loc[expected.index.repeat(4)]
    assert list(predicted["label"]) == list(wanted["predicted"])
    np.testing.assert_allclose(predicted[PROBABILITIES], wanted[PROBABILITIES], atol=1e-6)
    assert predicted["problem"].isna().all()
    # The two are told apart, so that a model deaf to its input would not pass.
    assert np.ptp(expected[PROBABILITIES], axis=0).max() > 0.01


def test_a_bad_video_has_a_problem_and_the_others_their_predictions(
    package: Path, videos: list[Path], expected: pd.DataFrame, tmp_path: Path
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    absent = tmp_path / "absent.mp4"
    predicted = mlflow.pyfunc.load_model(str(package)).predict(table([text, videos[1], absent]))
    assert list(predicted["video"]) == [str(text), *[str(videos[1])] * 4, str(absent)]
    bad, good = predicted.iloc[[0, 5]], predicted.iloc[1:5]
    assert bad.drop(columns=["video", "problem"]).isna().all(axis=None)
    assert bad["problem"].iloc[0].startswith("text.mp4: not a readable video")
    assert bad["problem"].iloc[1] == "absent.mp4: no such file; check the path in the table"
    wanted = expected[PROBABILITIES].iloc[[1] * 4]
    np.testing.assert_allclose(good[PROBABILITIES].astype(float), wanted, atol=1e-6)


def test_the_signature_asks_for_paths_and_names_the_classes(package: Path) -> None:
    signature = mlflow.pyfunc.load_model(str(package)).metadata.signature
    assert [(column.name, column.type.name) for column in signature.inputs] == [("video", "string")]
    assert signature.outputs.input_names() == ["video", *columns(CLASSES, 1), "problem"]


def test_a_package_holds_what_serving_imports_and_no_other_module(package: Path) -> None:
    packed = {path.relative_to(package / "code") for path in package.rglob("pipeline/**/*.py")}
    modules = {path for path in packed if path.name != "__init__.py"}
    assert modules == needed_files(PYFUNC, ROOT)
    for module in modules:
        assert (package / "code" / module).read_bytes() == (ROOT / module).read_bytes()
    packages = {folder for module in modules for folder in module.parents[:-1]}
    assert packed - modules == {folder / "__init__.py" for folder in packages}


def test_a_package_requires_what_its_code_imports_and_little_else() -> None:
    imported: set[str] = set()
    for module in needed_files(PYFUNC, ROOT):
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    # onnxruntime is asked for an exported model alone, and a package holds a saved one.
    own = {"pipeline", "facenet_pytorch", "onnxruntime"}
    others = imported - sys.stdlib_module_names - own
    # MLflow loads the model; timm needs torchvision, and facenet-pytorch, which is packed, both.
    required = {DISTRIBUTIONS.get(name, name) for name in others}
    assert required | {"mlflow", "torchvision", "requests"} == PACKAGES


def test_a_package_pins_the_versions_of_requirements(package: Path) -> None:
    pins = (package / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {pin.partition("==")[0] for pin in pins} == PACKAGES
    assert set(pins) <= set((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())


def test_a_package_names_no_folder_of_this_machine(package: Path, weights: Path) -> None:
    texts = [
        path
        for path in package.rglob("*")
        if path.suffix not in {".safetensors", ".pt"} and path.is_file()
    ]
    assert len(texts) > 10
    for path in texts:
        content = path.read_text(encoding="utf-8")
        assert not [
            folder for folder in (ROOT, Path.home(), weights.parent) if str(folder) in content
        ]


PROGRAM = """
import json, sys
import mlflow
import pandas as pd

run_id, *videos = sys.argv[1:]
(output,) = mlflow.MlflowClient().get_run(run_id).outputs.model_outputs
version = mlflow.register_model(f"models:/{output.model_id}", "expressions")
model = mlflow.pyfunc.load_model(f"models:/expressions/{version.version}")
predicted = model.predict(pd.DataFrame({"video": videos}))
import facenet_pytorch
from pipeline.serving import pyfunc
files = [pyfunc.__file__, facenet_pytorch.__file__]
print(json.dumps([version.version, files, predicted.to_dict("list")]))
"""


def test_a_logged_model_is_registered_and_loaded_far_from_the_project(
    weights: Path,
    videos: list[Path],
    expected: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    project = tmp_path / "project"
    for folder in (elsewhere, project):
        folder.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with track_fold(EXPERIMENT, 1) as log:
        pass

    def aggregate() -> None:
        folds = {1: FoldFiles([], {})}
        log_experiment(EXPERIMENT, folds, {"uar_mean": 0.5}, [], {1: weights}, {})

    aggregate()
    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = MlflowClient(uri)
    outputs = client.get_run(log.run_id).outputs
    assert outputs is not None
    assert len(outputs.model_outputs) == 1
    environment = {"PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, log.run_id, *map(str, videos)],
        cwd=elsewhere,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, modules, predicted = json.loads(done.stdout.splitlines()[-1])
    assert int(version) == 1
    # Of the package: not of the project, and not what is installed here.
    for module in modules:
        assert not Path(module).is_relative_to(ROOT)
        assert not Path(module).is_relative_to(sys.prefix)
    wanted = expected.loc[expected.index.repeat(4)]
    assert predicted["label"] == list(wanted["predicted"])
    found = pd.DataFrame(predicted)[PROBABILITIES]
    np.testing.assert_allclose(found, wanted[PROBABILITIES], atol=1e-6)

    # Once more without news adds nothing.
    experiment = client.get_experiment_by_name("dfer-sample")
    assert experiment is not None
    aggregate()
    assert len(client.search_logged_models([experiment.experiment_id])) == 1
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_model_that_cannot_be_attached_costs_a_warning_and_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folds, models = {1: FoldFiles([], {})}, {1: tmp_path / "absent"}
    with pytest.warns(UserWarning, match=r"No such file.*going on without it"):
        log_experiment(EXPERIMENT, folds, {"uar_mean": 0.5}, [], models, {})
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dfer-sample")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.`{AGGREGATED}` = 'yes'")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {"test/uar_mean": 0.5}
