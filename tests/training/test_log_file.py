from pathlib import Path

import pytest

from pipeline.training.log_file import log_file


def stop_with(line: str, error: BaseException) -> None:
    print(line)
    raise error


def test_lines_are_printed_and_kept_and_a_second_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    with log_file("finetune-fold1"):
        print("epoch 1 of 2")
    with pytest.raises(SystemExit, match="stopped"), log_file("finetune-fold1"):
        stop_with("epoch 2 of 2", SystemExit("stopped by Ctrl-C"))
    print("not a line of it")
    path = tmp_path / "logs/workspace/finetune-fold1.log"
    assert path.read_text().splitlines() == ["epoch 1 of 2", "epoch 2 of 2", "stopped by Ctrl-C"]
    assert capsys.readouterr().out.splitlines()[-1] == "not a line of it"


def test_experiments_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "bold-cat")
    with pytest.raises(MemoryError), log_file("train"):
        stop_with("epoch 1 of 2", MemoryError("no room"))
    assert (tmp_path / "logs/bold-cat/train.log").read_text() == (
        "epoch 1 of 2\nMemoryError: no room\n"
    )
