from pathlib import Path

import pytest
from project import ROOT

from commands.table_one import write_tables
from pipeline.evaluation.record import Record


@pytest.mark.parametrize("kind", ["md", "csv", "tex"])
def test_the_committed_table_follows_from_the_predictions_committed_with_it(
    kind: str, tmp_path: Path
) -> None:
    record = Record.read(ROOT / "metrics/ablation")
    assert record
    write_tables(record, [], tmp_path)
    name = f"ablation.{kind}"
    assert (tmp_path / name).read_bytes() == (ROOT / "metrics" / name).read_bytes()
