import os

# Before torch is imported: tests run side by side, one core each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whatever the user's own settings are: commits are not signed, and this machine needs no proxy.
os.environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "commit.gpgsign"}
os.environ |= {"GIT_CONFIG_VALUE_0": "false", "NO_PROXY": "127.0.0.1,localhost"}
os.environ.pop("DASK_SCHEDULER_ADDRESS", None)

import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: at the end of a run, no core then waits long for another."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
