"""What doctor compares a database with, made from the migrations: `python -m tests.migrations.catalogue` writes it anew."""

import json
from pathlib import Path
from typing import Any

import watcher.operator.doctor
from tests.support.database import Database, Worker, migrate
from watcher.sandbox import Postgres

FILE = Path(watcher.operator.doctor.__file__).with_name("catalogue.json")


def of(database: Database) -> dict[str, Any]:
    """The catalogue of a database as it is now."""
    answer = Worker(database).call("catalogue")
    assert isinstance(answer, dict)
    return answer


def _main() -> None:
    with Postgres() as postgres:
        postgres.create("migrated", auto_expose=False)
        migrate(postgres.dsn("migrated", "postgres"))
        database = Database(postgres, "migrated")
        FILE.write_text(json.dumps(of(database), indent=2, ensure_ascii=False) + "\n")
        database.close()


if __name__ == "__main__":
    _main()
