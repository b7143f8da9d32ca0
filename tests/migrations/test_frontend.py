"""What examples/web has from this side is what it would be if it were made now."""

from tests.migrations import frontend
from tests.support.database import Database


def test_the_types_are_those_of_the_schema(database: Database) -> None:
    assert frontend.types(database) == frontend.TYPES.read_text(), "Run: python -m tests.migrations.frontend"


def test_the_formats_are_those_of_the_daemon() -> None:
    assert frontend.formats() == frontend.FORMATS.read_text(), "Run: python -m tests.migrations.frontend"


def test_a_column_that_a_user_may_not_write_is_no_property(database: Database) -> None:
    insert = frontend.types(database).partition("Insert: {")[2].partition("}")[0]
    assert "identity_name: string\n" in insert
    assert "id?: string\n" in insert
    assert "model_id" not in insert


def test_every_column_comes_with_realtime_which_leaves_generated_ones_out(database: Database) -> None:
    generated = database.run(
        "select attname from pg_attribute where attrelid = 'public.trained_identities'::regclass and attgenerated <> ''"
    )
    assert generated == []
