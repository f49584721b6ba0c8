"""Where the runs are: a database and a folder of artifacts in the project, or a server.

MLflow writes the absolute places of artifacts into the database. In a copied or moved project it
would go on in the old folder; `mend_places` puts that right.
"""

import os
import posixpath
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipeline.common.files import project_root

_ARTIFACTS = "mlartifacts"
# Columns of MLflow's tables that hold the folder of the artifacts or something below it.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# Seconds; as long as another process may write.
_LOCK_TIMEOUT = 30.0


def tracking_uri() -> str:
    """What MLFLOW_TRACKING_URI says, else mlflow.db; a relative path is one of the project."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    root = project_root(Path.cwd())
    if relative := re.fullmatch(r"sqlite:///([^/].*)", uri):
        return f"{sqlite_uri(root)}/{relative[1]}"
    # A folder of files: `file:./mlruns`, or a path alone, which MLflow decodes as it does a URI.
    if relative := re.fullmatch(r"file:([^/].*)|(?!/|databricks(?:-uc)?$)([^:]+)", uri):
        path = relative[1] or quote(relative[2], "/%")
        return f"file://{posixpath.normpath(f'{quote(str(root))}/{path}')}"
    return uri


def sqlite_uri(path: Path) -> str:
    """How MLflow is told of an absolute path.

    SQLAlchemy decodes it. Only what must be encoded is, because MLflow makes the database's folder
    under its encoded name, too, and leaves it empty.
    """
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def database_file(uri: str) -> Path | None:
    """The database file that `tracking_uri` names; None for anything else, such as a server."""
    found = re.match(r"sqlite:///(/[^?]*)", uri)
    return Path(unquote(found[1])) if found else None


def artifacts_uri() -> str:
    """The folder for the artifacts of runs in a database file."""
    return (project_root(Path.cwd()) / _ARTIFACTS).as_uri()


def mend_places(database: Path) -> None:
    """Make MLflow look in this project for the artifacts that it has in a copied or moved one.

    Says so in one line. Left alone are places other than a folder mlartifacts, and a database
    outside of the project, which others may share.

    Raises:
        sqlite3.OperationalError: The database is locked for long, read-only, or not MLflow's.
    """
    root = project_root(Path.cwd())
    if not database.resolve().is_relative_to(root):
        return
    here = artifacts_uri()
    with closing(
        sqlite3.connect(database, timeout=_LOCK_TIMEOUT, isolation_level=None)
    ) as connection:
        if not _places_elsewhere(connection, here):
            return
        connection.execute("BEGIN IMMEDIATE")
        # Again: another process may have mended them in between.
        elsewhere = _places_elsewhere(connection, here)
        for there in elsewhere:
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = :here || substr({column}, length(:there) + 1) "
                    f"WHERE {column} = :there "
                    f"OR substr({column}, 1, length(:there) + 1) = :there || '/'",
                    {"here": here, "there": there},
                )
        connection.execute("COMMIT")
    if elsewhere:
        roots = " and ".join(str(Path(unquote(urlsplit(uri).path)).parent) for uri in elsewhere)
        print(
            f"{database.name} was made in {roots}; "
            f"its artifacts are now looked for in {root / _ARTIFACTS}"
        )


def _places_elsewhere(connection: sqlite3.Connection, here: str) -> list[str]:
    """The folders mlartifacts of experiments, but for the one at `here`, as URIs."""
    rows = connection.execute(
        "SELECT DISTINCT artifact_location FROM experiments "
        f"WHERE artifact_location GLOB 'file:*/{_ARTIFACTS}' AND artifact_location <> ?",
        [here],
    )
    return [uri for (uri,) in rows]
