import argparse
import ast
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from commands.__main__ import commands, overview

PROGRAMS = sorted(
    path
    for folder in ("commands", "stages", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "add_argument" in path.read_text(encoding="utf-8")
)


def test_every_command_is_listed_with_what_it_does() -> None:
    known = commands()
    assert {"predict", "table_one", "ui", "export", "check"} <= set(known)
    # Parts of commands.
    assert not {"pages", "experiments", "experiment_runs", "start_table"} & set(known)
    assert all(len(words) > 20 for words in known.values())
    assert f"  predict{' ' * (max(map(len, known)) - 7)}  Expressions of everybody" in overview()


def test_a_command_runs_by_its_name_and_a_near_one_is_proposed() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "commands", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run("ui", "--help")
    assert done.returncode == 0
    assert "MLflow's pages over the runs of the project" in done.stdout
    wrong = run("predit")
    assert wrong.returncode == 1
    assert "there is no command predit; did you mean predict?" in wrong.stderr


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_argument_of_a_program_is_explained(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == argparse.ArgumentParser.add_argument.__name__
    ]
    silent = [
        ast.unparse(call.args[0])
        for call in calls
        if "help" not in {keyword.arg for keyword in call.keywords}
    ]
    assert silent == []
