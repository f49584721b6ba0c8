import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Fault, Host

from pipeline.acquire.http import DownloadFailed
from pipeline.acquire.lfs import BudgetSpent, LfsObject, fetch_objects
from pipeline.common.hosts import RetryPolicy

POLICY = RetryPolicy(attempts=3, connect_s=5, stall_s=0.3, pause_s=0.01)
BATCH = "/owner/repo.git/info/lfs/objects/batch"
CONTENTS = {f"video/{i:03d}.flv": random.Random(i).randbytes(3000 + i) for i in range(230)}
OBJECTS = [
    LfsObject(path, hashlib.sha256(content).hexdigest(), len(content))
    for path, content in CONTENTS.items()
]
FEW = OBJECTS[:5]


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.add_lfs("owner/repo", CONTENTS.values())
        yield host


def fetch(host: Host, folder: Path, objects: list[LfsObject], **options: Any) -> None:
    settings: dict[str, Any] = {"policy": POLICY, **options}
    fetch_objects(f"{host.address}/owner/repo", objects, folder, **settings)


def found(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def few_without(*indices: int) -> dict[str, bytes]:
    return {item.path: CONTENTS[item.path] for i, item in enumerate(FEW) if i not in indices}


def of(item: LfsObject) -> str:
    """Where the host serves an object."""
    return f"/lfs/{item.sha256}"


def test_all_objects_come_in_batches_of_a_hundred(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(host, tmp_path / "new", OBJECTS)
    assert found(tmp_path / "new") == CONTENTS
    paths = [request.path for request in host.requests]
    assert [i for i, path in enumerate(paths) if path == BATCH] == [0, 101, 202]
    tickets = {
        request.path: request.headers.get("X-Ticket")
        for request in host.requests
        if request.path != BATCH
    }
    assert tickets == {of(item): item.sha256 for item in OBJECTS}
    assert "230 of 230 files (0.7 MB)" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["", ".git", "/", ".git/"])
def test_the_address_may_be_written_in_each_usual_way(
    host: Host, tmp_path: Path, ending: str
) -> None:
    fetch_objects(f"{host.address}/owner/repo{ending}", FEW, tmp_path, policy=POLICY)
    assert found(tmp_path) == few_without()


def test_what_is_right_stays_and_what_is_not_is_replaced(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, pointer, damaged = (tmp_path / item.path for item in FEW[:3])
    right.parent.mkdir()
    right.write_bytes(CONTENTS[FEW[0].path])
    pointer.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{FEW[1].sha256}\n"
        f"size {FEW[1].size}\n"
    )
    damaged.write_bytes(bytes(FEW[2].size))
    before = right.stat()
    fetch(host, tmp_path, FEW)
    assert found(tmp_path) == few_without()
    assert (right.stat().st_ino, right.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "4 of 5 files" in capsys.readouterr().out
    host.requests.clear()
    fetch(host, tmp_path, FEW)
    assert host.requests == []


def test_one_object_at_two_paths_comes_to_both(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path, [FEW[0], FEW[0], FEW[0]._replace(path="copy")])
    assert found(tmp_path) == dict.fromkeys((FEW[0].path, "copy"), CONTENTS[FEW[0].path])


def test_an_object_that_cannot_be_had_does_not_keep_the_others(host: Host, tmp_path: Path) -> None:
    host.lost.add(FEW[1].sha256)
    host.fail(of(FEW[3]), Fault.WRONG_BYTES, times=2)
    with pytest.raises(DownloadFailed, match="2 of 5 files could not") as caught:
        fetch(host, tmp_path, FEW)
    assert f"{FEW[1].path}: the host answers 404, 'Object does not exist'" in str(caught.value)
    assert FEW[3].path in str(caught.value)
    assert "token" not in str(caught.value)
    assert found(tmp_path) == few_without(1, 3)
    fetch(host, tmp_path, [FEW[3]])
    assert found(tmp_path) == few_without(1)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SERVER_ERROR, Fault.TOO_MANY, Fault.DROP])
def test_passing_faults_are_overcome(host: Host, tmp_path: Path, fault: Fault) -> None:
    host.fail(BATCH, fault)
    for item in FEW:
        host.fail(of(item), fault)
    fetch(host, tmp_path, FEW)
    assert found(tmp_path) == few_without()


def test_a_link_that_has_expired_is_asked_for_once_more(host: Host, tmp_path: Path) -> None:
    host.fail(of(FEW[2]), Fault.FORBIDDEN)
    fetch(host, tmp_path, FEW)
    assert found(tmp_path) == few_without()
    assert [request.path for request in host.requests].count(BATCH) == 2


def test_a_spent_budget_ends_it_at_once_and_keeps_what_is_there(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path, FEW[:2])
    host.requests.clear()
    host.over_quota.add("owner/repo")
    with pytest.raises(BudgetSpent, match="over its data quota"):
        fetch(host, tmp_path, OBJECTS)
    assert len(host.requests) == 1
    assert found(tmp_path) == few_without(2, 3, 4)


@pytest.mark.parametrize(
    "error",
    [
        {"code": 509, "message": "no"},
        {"code": 403, "message": "This repository exceeded its LFS budget."},
        {"code": 429, "message": "Bandwidth limit exceeded"},
    ],
)
def test_a_budget_may_end_with_a_single_object(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: dict[str, Any]
) -> None:
    asked: list[Any] = []

    def batch(_: str, body: Any) -> tuple[int, Any]:
        asked.append(body)
        return 200, {"objects": [{**item, "error": error} for item in body["objects"]]}

    monkeypatch.setattr(host, "batch", batch)
    with pytest.raises(BudgetSpent, match=str(error["code"])):
        fetch(host, tmp_path, OBJECTS)
    assert len(asked) == 1
    assert asked[0]["operation"] == "download"
    assert asked[0]["objects"][0] == {"oid": OBJECTS[0].sha256, "size": OBJECTS[0].size}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "gives no address"),
        ({"actions": {"download": {"href": "file:///etc/passwd"}}}, "no http or https address"),
        ({"actions": {"download": {"href": 1}}}, "gives no address"),
        ({"actions": {"download": {"href": "http://a"}}, "size": 1}, "1 bytes of it"),
        ({"oid": "0" * 64}, "gives no address"),
        ({"error": {"code": 422, "message": "\x1b[2Jno"}}, r"422, '\[2Jno'"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_failure_of_its_object(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, says: str
) -> None:
    monkeypatch.setattr(
        host,
        "batch",
        lambda _, body: (200, {"objects": [{**body["objects"][0], **answer}]}),
    )
    with pytest.raises(DownloadFailed, match=says):
        fetch(host, tmp_path, FEW[:1])
    assert found(tmp_path) == {}


@pytest.mark.parametrize("answer", [[], {}, {"objects": 1}, {"objects": [], "transfer": "ssh"}])
def test_a_host_that_is_no_lfs_host_is_told(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(host, "batch", lambda _, body: (200, answer))
    with pytest.raises(DownloadFailed, match="does not answer as a Git LFS host"):
        fetch(host, tmp_path, FEW)


def test_a_host_that_answers_no_download_is_given_up_before_the_end(
    host: Host, tmp_path: Path
) -> None:
    for item in OBJECTS:
        host.fail(of(item), Fault.DROP, times=3)
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        fetch(host, tmp_path, OBJECTS, num_threads=2)
    assert len({request.path for request in host.requests}) < 20
    assert found(tmp_path) == {}


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b", "", "C:\\a", "link/a"])
def test_an_objects_path_stays_in_the_folder(host: Host, tmp_path: Path, path: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out"):
        fetch(host, tmp_path / "out", [FEW[0]._replace(path=path)])
    assert host.requests == []


def test_two_objects_cannot_have_one_path(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two objects"):
        fetch(host, tmp_path, [FEW[0], FEW[1]._replace(path=FEW[0].path)])
    with pytest.raises(ValueError, match="no SHA-256"):
        fetch(host, tmp_path, [FEW[0]._replace(sha256="abc")])


def test_missing_space_is_told_before_anything_is_asked(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="make room"):
        fetch(host, tmp_path, [FEW[0]._replace(size=10**18)])
    assert host.requests == []
