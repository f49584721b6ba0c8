"""MLflow's pages over the runs of the project, at http://127.0.0.1:5000.

    python -m commands.ui

Where MLFLOW_TRACKING_URI names a server, its address is printed instead.
"""

import argparse
import os
import sqlite3
import sys
from contextlib import suppress

from pipeline.tracking.database import database_file, mend_places, tracking_uri


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    uri = tracking_uri()
    if uri.startswith("http"):
        print(f"MLflow's pages are at {uri}")
        return
    database = database_file(uri)
    if database and database.exists():
        # MLflow itself says best what is wrong with a database.
        with suppress(sqlite3.OperationalError):
            mend_places(database)
    sys.stdout.flush()
    options = ["--host", "127.0.0.1", "--backend-store-uri", uri]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *options])


if __name__ == "__main__":
    main()
