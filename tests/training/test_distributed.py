import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import ENVIRONMENT, run, without_clock

# 7 clips in batches of 3: shares of 2 and 1 clips, and for the last batch of 1 and none. 5 clips
# are validated, 3 and 2 by each.
SETTINGS = {"random": False, "ema": 0.5, "epochs": 2}
TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "tiny_training"]


def command(launcher: list[str], folder: Path, *options: str, **settings: object) -> list[str]:
    """A training of two processes, which writes out.pt and keeps its state in scratch."""
    paths = str(folder / "out.pt"), str(folder / "scratch")
    settings = SETTINGS | settings
    return [
        *(sys.executable, "-m", *launcher, *paths, *options),
        *("--settings", json.dumps(settings)),
    ]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def finish(arguments: list[str]) -> str:
    """What a command that succeeds says."""
    done = subprocess.run(
        arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_process(folder: Path) -> dict[str, Any]:
    """What the same training gives in this process."""
    out, fabric = folder / "one.pt", Fabric(accelerator="cpu", devices=1)
    run(fabric, out, folder / "other", random=False, ema=0.5, epochs=2, micro_batch_size=3)
    result: dict[str, Any] = torch.load(out)
    return result


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(tmp_path: Path) -> None:
    # One process takes two parts of a batch and the other one: they meet after the last.
    said = finish(command(TORCHRUN, tmp_path, "--then-fail", micro_batch_size=1))
    # Only the first process speaks.
    assert said.count("epoch 1 of 2") == 1
    two, one = torch.load(tmp_path / "out.pt"), one_process(tmp_path)
    assert two["clips"] == one["clips"] == [f"clip{i}" for i in range(5)]
    for row, same in zip(two["history"], one["history"], strict=True):
        assert without_clock(row) == pytest.approx(without_clock(same), rel=1e-4)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    torch.testing.assert_close(two["probabilities"], one["probabilities"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(two["weights"], one["weights"], rtol=1e-4, atol=1e-6)
    # One process met a clip without numbers; both stopped, and name the clips of both.
    notes = {(tmp_path / f"out.{rank}.txt").read_text(encoding="utf-8") for rank in range(2)}
    (note,) = notes
    assert note.startswith("the loss of epoch 1 is nan; the batch held the samples ")
    assert "clip0" in note
    assert note.count("clip") == 3


@pytest.mark.slow
def test_two_nodes_train_like_one_process(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    nodes = [
        subprocess.Popen(
            command([*launcher, "-m", "tiny_training"], tmp_path),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "".join(said).count("epoch 1 of 2") == 1
    weights = [torch.load(tmp_path / "out.pt")["weights"], one_process(tmp_path)["weights"]]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_sigterm_to_every_process_is_saved_and_the_training_goes_on(tmp_path: Path) -> None:
    """As Slurm does it: torchrun then sends another one to its processes."""
    waiting = subprocess.Popen(
        command(TORCHRUN, tmp_path, "--wait-at", "1"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert waiting.stdout
    for _ in range(2):
        assert any("waiting" in line for line in waiting.stdout)
    os.killpg(waiting.pid, signal.SIGTERM)
    # torchrun gives its processes their own groups.
    children = Path(f"/proc/{waiting.pid}/task/{waiting.pid}/children").read_bytes().split()
    assert len(children) == 2
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    (tmp_path / "out.go").touch()
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode != 0
    assert errors.count("stopped by SIGTERM after step 2 of epoch 1, and saved") == 1
    said = finish(command(TORCHRUN, tmp_path))
    assert said.count("going on in epoch 1 after 2 steps") == 1
    assert len(torch.load(tmp_path / "out.pt")["history"]) == SETTINGS["epochs"]


@pytest.mark.slow
def test_fabric_run_starts_the_processes_too(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "tiny_training.py"
    fabric_run = ["lightning_fabric.cli", "--accelerator", "cpu", "--devices", "2"]
    # Its own choice is the same port every time.
    fabric_run += ["--main-port", free_port(), str(script)]
    assert finish(command(fabric_run, tmp_path)).count("epoch 1 of 2") == 1
