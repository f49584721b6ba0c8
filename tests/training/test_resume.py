import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import ENVIRONMENT, run, without_clock

from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch

# 3 epochs of 3 steps; a reading may come after the last step, for validation.
NUM_STEPS = 9
SETTINGS: list[dict[str, Any]] = [
    {"schedule": "cosine", "ema": 0.9},
    {"schedule": "plateau", "ema": 0.0},
]


class Killed(BaseException):
    """In the place of a kill, which would end the tests."""


def kill_at(step: int) -> Callable[[], None]:
    readings = iter(range(1000))

    def before_reading() -> None:
        if next(readings) == step:
            raise Killed

    return before_reading


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def each_fabric(request: pytest.FixtureRequest, fabric: Fabric) -> Iterator[Fabric]:
    """A CPU; and a GPU whose kernels add up in the same order every time, which takes longer."""
    if request.param == "cpu":
        yield fabric
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch refuses to multiply without it
        torch.use_deterministic_algorithms(True)
        yield launch("32-true")
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def undisturbed(
    request: pytest.FixtureRequest, each_fabric: Fabric, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """Settings, and the result of a training that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(each_fabric, folder / "out.pt", folder / "scratch", **request.param)
    return request.param, folder / "out.pt"


def same_bits(one: Path, other: Path) -> bool:
    a, b = torch.load(one), torch.load(other)
    histories = [[without_clock(row) for row in result["history"]] for result in (a, b)]
    return (
        histories[0] == histories[1]
        and a["losses"] == b["losses"]
        and a["clips"] == b["clips"]
        and torch.equal(a["probabilities"], b["probabilities"])
        and a["weights"].keys() == b["weights"].keys()
        and all(torch.equal(value, b["weights"][name]) for name, value in a["weights"].items())
    )


@pytest.mark.parametrize("save_always", [True, False], ids=["every step", "every epoch"])
def test_a_training_killed_at_ten_random_steps_ends_with_the_same_bits(
    save_always: bool,
    undisturbed: tuple[dict[str, Any], Path],
    each_fabric: Fabric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, expected = undisturbed
    if save_always:
        monkeypatch.setattr("pipeline.training.checkpoints._SAVE_SECONDS", 0)
    # However long saving takes in comparison to these epochs.
    monkeypatch.setattr("pipeline.training.checkpoints._SAVE_SHARE", math.inf)
    torch.manual_seed(0)  # the fixture is not to be a repetition of this process's state
    stops = [random.Random(i).randrange(NUM_STEPS) for i in range(10)]
    for i, stop in enumerate(stops):
        out, scratch = tmp_path / f"{i}.pt", tmp_path / f"scratch{i}"
        with pytest.raises(Killed):
            run(each_fabric, out, scratch, before_reading=kill_at(stop), **settings)
        epochs: list[float] = []
        readings: list[int] = []
        run(
            each_fabric,
            out,
            scratch,
            before_reading=lambda: readings.append(0),  # noqa: B023
            on_epoch=lambda row: epochs.append(row["epoch"]),  # noqa: B023
            **settings,
        )
        assert same_bits(out, expected), f"stopped at step {stop}"
        assert epochs == [1, 2, 3]
        # Nothing that was done is done or read again.
        saved = stop if save_always else stop // 3 * 3
        assert len(readings) == NUM_STEPS - saved


def test_a_training_killed_again_and_again_ends_with_the_same_bits(
    undisturbed: tuple[dict[str, Any], Path],
    each_fabric: Fabric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, expected = undisturbed
    monkeypatch.setattr("pipeline.training.checkpoints._SAVE_SECONDS", 0)
    out, scratch = tmp_path / "out.pt", tmp_path / "scratch"
    for _ in range(NUM_STEPS - 1):
        with pytest.raises(Killed):
            run(each_fabric, out, scratch, before_reading=kill_at(1), **settings)
    run(each_fabric, out, scratch, before_reading=kill_at(1), **settings)
    assert same_bits(out, expected)


def command(out: Path, scratch: Path, *options: str) -> list[str]:
    program = [sys.executable, "-m", "tiny_training", str(out), str(scratch)]
    return [*program, "--settings", json.dumps(SETTINGS[0]), *options]


def finish(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_after_a_real_kill_and_a_sigterm_the_same_command_goes_on(
    fabric: Fabric, tmp_path: Path
) -> None:
    whole, out, scratch = tmp_path / "whole.pt", tmp_path / "out.pt", tmp_path / "scratch"
    run(fabric, whole, tmp_path / "other", **SETTINGS[0])

    killed = finish(*command(out, scratch, "--save-always", "--kill-at", "2"))
    assert killed.returncode == -signal.SIGKILL

    # The third of the remaining steps waits until the signal came.
    waiting = subprocess.Popen(
        command(out, scratch, "--wait-at", "2"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout
    assert any("waiting" in line for line in waiting.stdout)

    second = finish(*command(out, scratch))
    assert second.returncode == 1
    assert "another process is at this very training" in second.stderr

    waiting.send_signal(signal.SIGTERM)
    out.with_suffix(".go").touch()
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 143, errors
    assert "stopped by SIGTERM after step 2 of epoch 2, and saved: the same command" in errors

    last = finish(*command(out, scratch))
    assert last.returncode == 0, last.stderr
    assert "going on in epoch 2 after 2 steps" in last.stdout
    assert same_bits(out, whole)


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_damaged_checkpoint_is_a_warning_and_a_fresh_start(
    kept: float,
    undisturbed: tuple[dict[str, Any], Path],
    fabric: Fabric,
    tmp_path: Path,
) -> None:
    settings, expected = undisturbed
    scratch = tmp_path / "scratch"
    with pytest.raises(Killed):
        run(fabric, tmp_path / "out.pt", scratch, before_reading=kill_at(7), **settings)
    whole = (scratch / "state.pt").read_bytes()
    size = int(kept * len(whole)) if kept == 0.5 else int(kept)
    (scratch / "state.pt").write_bytes(whole[:size])
    with pytest.warns(UserWarning, match=r"state\.pt is damaged .* starts afresh"):
        run(fabric, tmp_path / "out.pt", scratch, **settings)
    assert same_bits(tmp_path / "out.pt", expected)


def test_a_crash_while_saving_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "scratch")
    checkpoints.save({"step": 1})
    with monkeypatch.context() as patch:

        def crash(*_: object) -> None:
            raise Killed

        patch.setattr(os, "fsync", crash)
        with pytest.raises(Killed):
            checkpoints.save({"step": 2})
    assert checkpoints.load() == {"step": 1}
    (tmp_path / "scratch/.state.pt.1.partial.pt").write_bytes(b"of a process that was killed")
    assert Checkpoints(tmp_path / "scratch").load() == {"step": 1}
    assert {path.name for path in (tmp_path / "scratch").iterdir()} == {"state.pt", "lock"}


def test_a_state_is_saved_now_and_then_but_not_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("pipeline.training.checkpoints.time.monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path / "scratch")
    assert checkpoints.due(epoch_ended=True)
    checkpoints.save({})
    checkpoints.save_seconds = 3.0
    for seconds, in_epoch, at_end in ((59, False, False), (61, False, True), (301, True, True)):
        now = checkpoints.saved_at + seconds
        assert checkpoints.due(epoch_ended=False) == in_epoch
        assert checkpoints.due(epoch_ended=True) == at_end
