"""What things are called in MLflow: metrics in groups, hidden tags, and the table of runs.

MLflow draws metrics with the same word before a slash as one group, hides tags that begin with
`mlflow.`, and opens its table of runs as a tag of the experiment says.
"""

import json

from pipeline.training.history import MEASURED

_PREFIX = "mlflow.dfer."
# Tags for the project alone: which runs are of one experiment and commit; whether a run is closed
# and with what; whose process it is; which stage of DVC made it.
KEY, AGGREGATED, RESULT = f"{_PREFIX}key", f"{_PREFIX}aggregated", f"{_PREFIX}result_digest"
PROCESS, STAGE = f"{_PREFIX}process", f"{_PREFIX}dvc_stage"
# Shown to people.
DVC_EXPERIMENT = "dvc_experiment"

_PARTS = ("train", "validation", "test")
_OF_TRAINING = ("epoch", "learning_rate", "gradient_norm", "best_epoch", "num_parameters")
SECONDS = "train/seconds_in_all"
# The stored view, by its name in the address.
VIEW = "table"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


def grouped(name: str) -> str:
    """The name of a metric in its group.

    `validation_uar` -> `validation/uar`, `uar_pooled` -> `test/uar_pooled`, `seconds` ->
    `system/seconds`.
    """
    if "/" in name:
        return name
    part, _, rest = name.partition("_")
    if part in _PARTS and rest:
        return f"{part}/{rest}"
    if name in _OF_TRAINING:
        return f"train/{name}"
    return f"system/{name}" if name in MEASURED else f"test/{name}"


def stored_view(choices: list[str], scores: list[str]) -> str:
    """The table of finished experiments, for `VIEW_TAG`: a row each, the best one first.

    Args:
        choices: Parameters that are columns.
        scores: Metrics that are columns, by their names in files; the first one sorts.
    """
    columns = [f"params.`{name}`" for name in choices]
    columns += [f"metrics.`{grouped(name)}`" for name in scores]
    return json.dumps(
        {
            "searchFilter": f"tags.`{AGGREGATED}` = 'yes'",
            "orderByKey": f"metrics.`{grouped(scores[0])}`",
            "orderByAsc": False,
            "selectedColumns": [*columns, f"tags.`{DVC_EXPERIMENT}`"],
        }
    )


def runs_page(address: str, experiment_id: str) -> str:
    """Where MLflow shows that table."""
    view = f"viewStateShareKey={VIEW}&workflowType=machine_learning"
    return f"{address}/#/experiments/{experiment_id}/runs?{view}"


def comparison_page(address: str, experiment_id: str, run_ids: list[str]) -> str:
    """Where MLflow shows runs side by side."""
    runs = json.dumps(run_ids, separators=(",", ":"))
    return f'{address}/#/compare-runs?runs={runs}&experiments=["{experiment_id}"]'
