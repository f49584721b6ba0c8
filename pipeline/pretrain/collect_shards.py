"""The manifests of this project's shards as that of a pre-training, without who is tested."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.common.clips import read_stored
from pipeline.folds.folds import read_fold
from pipeline.pretrain.listing import Collection, Split
from pipeline.pretrain.manifest import MANIFEST, Clip, write_manifest
from pipeline.store.contents import CLIPS


def collect_shards(
    out: Path, source: Path, split: Split, excluded_by: Path, excluded_folds: Sequence[int]
) -> Collection:
    """Take over the manifests of shards.

    Args:
        out: Of the manifest.
        source: The shards of a data set, or a folder of several data sets' shards.
        split: What is held out.
        excluded_by: Table of folds of one of the data sets, which has its name.
        excluded_folds: Numbers of folds in it; who is tested in them is left out.

    Raises:
        FileNotFoundError: No shards are there.
        ValueError: The folds are of a data set that is not there, or of other clips of it.
    """
    if (source / CLIPS).is_file():
        folders = [source]
    else:
        folders = sorted(path.parent for path in source.glob(f"*/{CLIPS}"))
    if not folders:
        raise FileNotFoundError(
            f"{source} holds no shards, and neither do its folders: make them with "
            "`dvc exp run -S dataset=NAME label`"
        )
    clips = {folder: read_stored(folder / CLIPS) for folder in folders}
    excluded = _tested(excluded_by, excluded_folds, folders) if excluded_folds else {}
    kept = {
        folder: [clip for clip in clips[folder] if clip.group not in excluded.get(folder.name, ())]
        for folder in folders
    }
    names = [f"{folder.name}/{clip.group}" for folder in folders for clip in kept[folder]]
    if not names:
        raise ValueError(f"{excluded_by} tests everybody in the folds {list(excluded_folds)}")
    part_of = split.part_of(names)
    with write_manifest(out / MANIFEST, Clip) as writer:
        for folder in folders:
            place = "" if folder == source else f"{folder.name}/"
            for clip in kept[folder]:
                writer.add(
                    Clip(
                        f"{folder.name}/{clip.clip}",
                        f"{place}{clip.shard}",
                        folder.name,
                        clip.group,
                        part_of(f"{folder.name}/{clip.group}"),
                        clip.first_byte,
                        clip.end,
                    )
                )
    return Collection(sum(map(len, clips.values())), writer.count, [], excluded)


def _tested(table: Path, numbers: Sequence[int], folders: Sequence[Path]) -> dict[str, list[str]]:
    """Groups that are tested in these folds of a data set, under its name."""
    found = [folder for folder in folders if folder.name == table.stem]
    if not found:
        raise ValueError(
            f"{table} is named like no data set that is there "
            f"({', '.join(folder.name for folder in folders)}): data/folds/NAME.csv goes with "
            "data/shards/NAME"
        )
    clips = read_stored(found[0] / CLIPS)
    groups: set[str] = set()
    for number in numbers:
        tested = read_fold(table, number).rows(clips, "test")
        if not tested:
            raise ValueError(
                f"{table} tests no clip of {found[0]} in fold {number}: it is of other clips"
            )
        groups |= {clips[row].group for row in tested}
    return {table.stem: sorted(groups)}
