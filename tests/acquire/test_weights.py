import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hosts import Fault, Host
from project import ROOT
from safetensors.torch import save_file

from commands.weights import table
from pipeline.acquire.http import DownloadFailed
from pipeline.acquire.weights import cards, provide, read_card
from pipeline.common.encoder_weights import (
    CARD,
    CHECKPOINT,
    History,
    card_in,
    checkpoint_in,
    history_in,
)
from pipeline.common.hosts import RetryPolicy
from pipeline.models.families import FAMILIES, V_JEPA, V_JEPA_2
from stages.weights import Params, main

CONTENT = b"many weights " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
POLICY = RetryPolicy(attempts=2, connect_s=2, stall_s=2, min_bytes_per_s=1, pause_s=0)
KNOWN = {
    "file": "model.safetensors",
    "page": "https://example.org/model",
    "family": "image MAE",
    "model": "base",
    "licence": "CC BY-NC 4.0",
    "accept_licence": False,
    "trained_on": "faces",
}


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def write_card(folder: Path, **changes: object) -> Path:
    path = folder / "weights/some-name"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(KNOWN | changes), encoding="utf-8")
    return path


def run(folder: Path, source: Path, hub: str, *, accept_licence: bool = False) -> Path:
    """The folder that was filled."""
    out = folder / "out"
    provide(
        source,
        out,
        folder / "downloads",
        accept_licence=accept_licence,
        policy=POLICY,
        hugging_face=hub,
    )
    return out


def test_the_cards_of_the_project_are_of_known_families_and_sizes() -> None:
    found = cards(ROOT / "weights")
    assert {"videomae-base", "marlin-large", "s4d-base", "fmae-large", "mae-face-base"} <= set(
        found
    )
    known = {family.name for family in (*FAMILIES, V_JEPA, V_JEPA_2)}
    presets = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"]
    for name, card in found.items():
        assert card.family in known, name
        assert card.model in presets
        assert card.page.startswith("https://")
        assert not card.size or card.sha256
    listed = table(ROOT / "weights")
    assert all(f"| {name} |" in listed for name in found)


def test_every_name_that_the_docs_list_has_a_card_in_git() -> None:
    page = (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z][^|]*`[^|]*) \| [^|]*http", page, re.MULTILINE)
    listed = set()
    for row in rows:
        names = re.findall(r"`([\w-]+)`", row.partition("(")[0])
        stem = names[0].partition("-")[0]
        listed |= {stem + name if name.startswith("-") else name for name in names}
    assert listed == set(cards(ROOT / "weights"))
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *(f"weights/{name}" for name in listed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # The last of the patterns that fit is one that takes a name out.
    assert ignored.stdout == ""


def test_a_file_of_the_hub_is_fetched_once_with_what_is_known_of_it(
    host: Host, tmp_path: Path
) -> None:
    path = host.add_hub_file("owner/model", "model.safetensors", CONTENT, "main")
    source = write_card(tmp_path, repository="owner/model", sha256=SHA256)
    for _ in range(2):
        out = run(tmp_path, source, host.address)
        checkpoint = checkpoint_in(out)
        assert checkpoint
        assert checkpoint.read_bytes() == CONTENT
    assert [request.method for request in host.requests if request.path == path] == ["HEAD", "GET"]
    assert card_in(out) == {
        "name": "some-name",
        "sha256": SHA256,
        **{name: KNOWN[name] for name in ("family", "licence", "page")},
        "history": {"known": True, "trained_on": KNOWN["trained_on"], "groups": {}},
    }
    assert [file.name for file in (tmp_path / "downloads/some-name").iterdir()] == [
        "model.safetensors"
    ]


def test_a_file_elsewhere_is_fetched_from_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.add("/model", CONTENT)
    host.fail("/model", Fault.CUT)
    source = write_card(tmp_path, address=f"{host.address}/model", size=len(CONTENT), sha256=SHA256)
    assert (run(tmp_path, source, "http://unused") / CHECKPOINT).read_bytes() == CONTENT
    assert host.ranges("/model") == [None, f"bytes={len(CONTENT) // 2}-"]


def test_another_file_than_the_announced_one_is_refused(host: Host, tmp_path: Path) -> None:
    host.add_hub_file("owner/model", "model.safetensors", b"something else", "main")
    source = write_card(tmp_path, repository="owner/model", sha256=SHA256)
    with pytest.raises(DownloadFailed, match=f"its source publishes {SHA256}"):
        run(tmp_path, source, host.address)
    assert not checkpoint_in(tmp_path / "out")


def test_without_an_accepted_licence_nothing_is_asked_for(host: Host, tmp_path: Path) -> None:
    path = host.add_hub_file("owner/model", "model.safetensors", CONTENT, "main")
    source = write_card(tmp_path, repository="owner/model", accept_licence=True)
    with pytest.raises(PermissionError, match=r"CC BY-NC 4.0\n.*encoder\.accept_licence"):
        run(tmp_path, source, host.address)
    assert not host.requests
    assert (run(tmp_path, source, host.address, accept_licence=True) / CHECKPOINT).is_file()
    assert host.ranges(path) == [None, None]


def test_a_file_that_no_program_can_fetch_is_asked_for_and_then_taken(tmp_path: Path) -> None:
    source = write_card(tmp_path)
    place = tmp_path / "downloads/some-name/model.safetensors"
    with pytest.raises(FileNotFoundError, match=f"fetch model.safetensors from .* at {place}"):
        run(tmp_path, source, "http://unused")
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert (run(tmp_path, source, "http://unused") / CHECKPOINT).read_bytes() == CONTENT


def test_a_file_that_the_hub_does_not_have_is_asked_for_by_hand(host: Host, tmp_path: Path) -> None:
    source = write_card(tmp_path, repository="owner/model")
    with pytest.raises(DownloadFailed, match=r"owner/model on http.* Or fetch model.safetensors"):
        run(tmp_path, source, host.address)


def test_without_a_network_it_says_what_to_put_where(tmp_path: Path) -> None:
    with Host() as gone:
        address = gone.address
    source = write_card(tmp_path, repository="owner/model")
    with pytest.raises(DownloadFailed, match=r"HTTPS_PROXY.* Or fetch .* and put it at"):
        run(tmp_path, source, address)


def test_an_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "weights/mine.pt"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    out = run(tmp_path, source, "http://unused")
    assert (out / CHECKPOINT).read_bytes() == CONTENT
    nothing = {"known": False, "trained_on": "", "groups": {}}
    assert card_in(out) == {"name": "mine.pt", "sha256": SHA256, "history": nothing}


def test_an_own_file_tells_whom_it_has_seen(tmp_path: Path) -> None:
    source = tmp_path / "weights/mine.safetensors"
    source.parent.mkdir()
    history = History.empty().with_groups("sample", ["s02", "s01"])
    save_file({"norm.weight": torch.zeros(2)}, source, metadata=history.header())
    assert history_in(run(tmp_path, source, "http://unused")) == history


def test_from_scratch_there_is_no_checkpoint(tmp_path: Path) -> None:
    out = run(tmp_path, ROOT / "weights/from_scratch", "http://unused")
    assert [path.name for path in out.iterdir()] == [CARD]
    assert card_in(out)["name"] == "from_scratch"
    assert history_in(out) == History.empty()


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path) -> None:
    source = write_card(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"marlin is neither a name \(.*some-name\)"):
        read_card(source.with_name("marlin"))


def test_a_card_with_a_mistake_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)some-name: .*license"):
        read_card(write_card(tmp_path, license="MIT"))
    with pytest.raises(ValueError, match="an address needs size and sha256"):
        read_card(write_card(tmp_path, address="https://example.org/model"))


def test_the_stage_ends_with_the_reason(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    host.add_hub_file("owner/model", "model.safetensors", CONTENT, "main")
    source = write_card(tmp_path, repository="owner/model", accept_licence=True)
    settings = {"weights": "some-name", "accept_licence": False, "hugging_face": host.address}
    with pytest.raises(SystemExit, match=r"weights: model\.safetensors is published under"):
        main(Params.model_validate({"encoder": settings}), source, tmp_path / "out", POLICY)
    accepted = Params.model_validate({"encoder": settings | {"accept_licence": True}})
    assert not accepted.encoder.allow_seen
    main(accepted, source, tmp_path / "out", POLICY)
    assert f"sha256 {SHA256}" in capsys.readouterr().out
