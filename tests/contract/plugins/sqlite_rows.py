"""Read the rows of the only table of an SQLite database: `path: rows.db`."""

import sqlite3

from tunesmith import DataError, Plugin, Row, hookimpl

plugin = Plugin(sources=("file", ".db"))


class Table:
    """The rows in the order of their numbers. The database is opened again for each iteration."""

    def __init__(self, path, where):
        self.path, self.where = path, where

    def __iter__(self):
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True) as base:
            base.row_factory = sqlite3.Row
            names = [row["name"] for row in base.execute("select name from sqlite_master where type = 'table'")]
            if len(names) != 1:
                raise DataError(f"{self.path}: expected one table, got {len(names)}", where=self.where)
            for row in base.execute(f'select rowid as "row", * from "{names[0]}" order by rowid'):
                record = dict(row)
                yield Row(record, where=f"{self.path}:{record.pop('row')}")


@hookimpl
def load_rows(spec):
    return Table(spec.settings.path, spec.where)
