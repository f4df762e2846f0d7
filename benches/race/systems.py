"""The systems that race: how each is asked to add the rows of a file whose keys it does not have yet.

Each is used in the way its own documentation gives for that job. A write has two halves, so that a race can be
arranged: `begin` looks at the table and judges the rows, as far as the system lets the two be parted; `finish`
commits. Where it does not, `begin` opens the table and `finish` does the rest; where even that is one call, the
writers are only started at the same moment (`held` is False).

A writer that is told of an error runs the whole write again, as every one of them advises after a conflict.
"""

import json
import os
import subprocess
import threading
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [pa.field("id", pa.string(), nullable=False), pa.field("writer", pa.string()), pa.field("n", pa.int64())]
)


class System:
    """What a system that is not told otherwise can do."""

    packages = ()
    held = True  # can it be stopped between its look at the table and its commit?
    one_process = False  # must all its writers live in one process?
    note = ""

    def __init__(self, home):
        self.home = Path(home)

    @classmethod
    def versions(cls):
        return ", ".join(f"{package} {version(package)}" for package in cls.packages)

    @classmethod
    def load(cls):
        """Imports what is needed, so that it is not part of a write."""

    def write(self, path):
        """The same as begin and finish at once."""
        state = self.begin(path)
        try:
            self.finish(state)
        except Exception:
            self.forget(state)
            raise

    def forget(self, state):
        """Lets go of a write that failed."""


class Dedupe(System):
    name = "dedupe"
    how = "`dedupe ingest FILE --into TABLE --key id`; to hold it, the same rows on standard input, the last one late"

    @classmethod
    def versions(cls):
        return subprocess.run([os.environ["RACE_DEDUPE"], "--version"], capture_output=True, text=True).stdout.strip()

    def create(self):
        """Nothing: the first ingest creates the table."""

    def command(self, *words):
        return [os.environ["RACE_DEDUPE"], *words]

    def ingest(self, source):
        return self.command("ingest", str(source), "--into", str(self.home), "--key", "id", "--output", "json")

    def write(self, path):
        done = subprocess.run(self.ingest(path), capture_output=True, text=True)
        self.check(done.returncode, done.stdout)

    def begin(self, path):
        run = subprocess.Popen(
            self.ingest("-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        *lines, last = [json.dumps(row) + "\n" for row in pq.read_table(path).to_pylist()]
        # More than a pipe holds: when this returns, the program has opened the table and reads.
        assert sum(map(len, lines)) > 1 << 16
        run.stdin.write("".join(lines))
        run.stdin.flush()
        return run, last

    def finish(self, state):
        run, last = state
        out, _ = run.communicate(last)
        self.check(run.returncode, out)

    def check(self, code, out):
        if code != 0:
            raise RuntimeError(f"exit {code}: {json.loads(out)['error']['message'] if out else 'killed'}")

    def rows(self):
        out = subprocess.run(self.command("files", str(self.home)), capture_output=True, text=True)
        if out.returncode == 2:  # no such table
            return []
        assert out.returncode == 0, out.stderr
        return [id for file in out.stdout.splitlines() for id in pq.read_table(file)["id"].to_pylist()]


class Delta(System):
    name = "Delta Lake (delta-rs)"
    packages = ("deltalake",)
    how = "`DeltaTable(…).merge(rows, 't.id = s.id').when_not_matched_insert_all().execute()`"

    @classmethod
    def load(cls):
        import deltalake  # noqa: F401

    def create(self):
        from deltalake import DeltaTable, Schema

        DeltaTable.create(str(self.home), schema=Schema.from_arrow(SCHEMA))

    def begin(self, path):
        from deltalake import DeltaTable

        return DeltaTable(str(self.home)), pq.read_table(path)

    def finish(self, state):
        table, rows = state
        table.merge(rows, "t.id = s.id", source_alias="s", target_alias="t").when_not_matched_insert_all().execute()

    def rows(self):
        from deltalake import DeltaTable

        return pa.table(DeltaTable(str(self.home)).to_pyarrow_table())["id"].to_pylist()


class Lance(System):
    name = "Lance, key not declared"
    packages = ("pylance",)
    how = "`dataset(…).merge_insert('id').when_not_matched_insert_all().execute(rows)`"
    declared = False

    @classmethod
    def load(cls):
        import lance  # noqa: F401

    def schema(self):
        metadata = {"lance-schema:unenforced-primary-key": "true"} if self.declared else None
        return SCHEMA.set(0, SCHEMA.field(0).with_metadata(metadata))

    def create(self):
        import lance

        lance.write_dataset(self.schema().empty_table(), str(self.home), schema=self.schema())

    def begin(self, path):
        import lance

        return lance.dataset(str(self.home)), pq.read_table(path).cast(self.schema())

    def finish(self, state):
        dataset, rows = state
        dataset.merge_insert("id").when_not_matched_insert_all().execute(rows)

    def rows(self):
        import lance

        return lance.dataset(str(self.home)).to_table()["id"].to_pylist()


class LanceDeclared(Lance):
    name = "Lance, key declared"
    how = "the same; the key column carries `lance-schema:unenforced-primary-key`"
    declared = True


class LanceDb(System):
    name = "LanceDB, key not declared"
    packages = ("lancedb",)
    how = "`table.merge_insert('id').when_not_matched_insert_all().execute(rows)`"
    declared = False

    @classmethod
    def load(cls):
        import lancedb  # noqa: F401

    def open(self):
        import lancedb

        return lancedb.connect(str(self.home)).open_table("t")

    def create(self):
        import lancedb

        table = lancedb.connect(str(self.home)).create_table("t", schema=SCHEMA)
        if self.declared:
            table.set_unenforced_primary_key("id")

    def begin(self, path):
        table = self.open()
        return table, pq.read_table(path).cast(table.schema)

    def finish(self, state):
        table, rows = state
        table.merge_insert("id").when_not_matched_insert_all().execute(rows)

    def rows(self):
        return self.open().to_arrow()["id"].to_pylist()


class LanceDbDeclared(LanceDb):
    name = "LanceDB, key declared"
    how = "the same, after `table.set_unenforced_primary_key('id')`"
    declared = True


class Iceberg(System):
    name = "Iceberg (PyIceberg), insert only"
    packages = ("pyiceberg",)
    how = "`transaction.upsert(rows, when_matched_update_all=False)`, identifier field `id`, PostgreSQL as the catalog"
    update = False

    @classmethod
    def load(cls):
        import pyiceberg.catalog.sql  # noqa: F401
        import pyiceberg.io.pyarrow  # noqa: F401

    def catalog(self):
        from pyiceberg.catalog.sql import SqlCatalog

        uri = f"postgresql+psycopg2://postgres@/postgres?host={os.environ['RACE_POSTGRES']}"
        return SqlCatalog(self.home.name, uri=uri, warehouse=f"file://{self.home}")

    def create(self):
        from pyiceberg.schema import Schema
        from pyiceberg.types import LongType, NestedField, StringType

        catalog = self.catalog()
        catalog.create_namespace("n")
        fields = (
            NestedField(1, "id", StringType(), required=True),
            NestedField(2, "writer", StringType()),
            NestedField(3, "n", LongType()),
        )
        catalog.create_table("n.t", Schema(*fields, identifier_field_ids=[1]))

    def begin(self, path):
        transaction = self.catalog().load_table("n.t").transaction()
        transaction.upsert(pq.read_table(path).cast(SCHEMA), when_matched_update_all=self.update)
        return transaction

    def finish(self, state):
        state.commit_transaction()

    def rows(self):
        return self.catalog().load_table("n.t").scan().to_arrow()["id"].to_pylist()


class IcebergUpsert(Iceberg):
    name = "Iceberg (PyIceberg), upsert"
    how = "`transaction.upsert(rows)`: known rows are updated"
    update = True


class DuckLake(System):
    packages = ("duckdb", "duckdb-extension-ducklake")
    how = "`MERGE INTO … WHEN NOT MATCHED THEN INSERT` in a transaction"
    update = ""

    @classmethod
    def load(cls):
        import duckdb
        from duckdb_extensions import import_extension

        for extension in ("ducklake", cls.catalog_extension):
            import_extension(extension)
        duckdb.connect().execute(f"LOAD ducklake; LOAD {cls.catalog_extension}")

    merge = """MERGE INTO lake."{table}" AS t USING (FROM read_parquet('{path}')) AS s ON t.id = s.id
        {update} WHEN NOT MATCHED THEN INSERT"""
    attached = threading.local()  # a writer stays attached to the lake, of which each race is a table

    def connect(self):
        import duckdb

        if getattr(self.attached, "connection", None) is None:
            connection = duckdb.connect()
            connection.execute(f"LOAD ducklake; LOAD {self.catalog_extension}")
            where = f"'ducklake:{self.catalog()}' AS lake (DATA_PATH '{self.lake()}/'{self.options()})"
            connection.execute(f"ATTACH {where}")
            self.attached.connection = connection
        return self.attached.connection

    def lake(self):
        return self.home.parent / type(self).__name__

    def options(self):
        return ""

    def create(self):
        self.lake().mkdir(exist_ok=True)
        columns = "id VARCHAR NOT NULL, writer VARCHAR, n BIGINT"
        self.connect().execute(f'CREATE TABLE lake."{self.home.name}" ({columns})')

    def begin(self, path):
        connection = self.connect()
        connection.execute("BEGIN")
        try:
            connection.execute(self.merge.format(table=self.home.name, path=path, update=self.update))
        except Exception:
            self.forget(connection)
            raise
        return connection

    def finish(self, state):
        state.execute("COMMIT")

    def forget(self, state):
        """A transaction that failed is over; the next attempt attaches anew."""
        state.close()
        self.attached.connection = None

    def rows(self):
        return [id for (id,) in self.connect().execute(f'SELECT id FROM lake."{self.home.name}"').fetchall()]


class DuckLakePostgres(DuckLake):
    name = "DuckLake, PostgreSQL, insert only"
    catalog_extension = "postgres_scanner"

    def catalog(self):
        return f"postgres:dbname=postgres host={os.environ['RACE_POSTGRES']} user=postgres"

    def options(self):
        return f", METADATA_SCHEMA '{type(self).__name__}'"


class DuckLakeUpsert(DuckLakePostgres):
    name = "DuckLake, PostgreSQL, upsert"
    how = "`MERGE INTO … WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT` in a transaction"
    update = "WHEN MATCHED THEN UPDATE"


class DuckLakeSqlite(DuckLake):
    name = "DuckLake, SQLite, insert only"
    catalog_extension = "sqlite_scanner"
    held = False  # an open transaction keeps all others from committing
    note = "cannot be held: an open transaction locks the catalog"

    def catalog(self):
        return f"sqlite:{self.lake()}/catalog.sqlite"


class DuckDb(System):
    name = "DuckDB, primary key"
    packages = ("duckdb",)
    how = "`INSERT INTO t … ON CONFLICT DO NOTHING` in a transaction; both writers in one process"
    one_process = True

    @classmethod
    def load(cls):
        import duckdb  # noqa: F401

    def connect(self):
        import duckdb

        return duckdb.connect(f"{self.home}/t.duckdb")

    def create(self):
        self.home.mkdir()
        connection = self.connect()
        connection.execute("CREATE TABLE t (id VARCHAR PRIMARY KEY, writer VARCHAR, n BIGINT)")
        connection.close()

    def begin(self, path):
        connection = self.connect()
        try:
            connection.execute("BEGIN")
            connection.execute(f"INSERT INTO t FROM read_parquet('{path}') ON CONFLICT DO NOTHING")
        except Exception:
            connection.close()
            raise
        return connection

    def finish(self, state):
        state.execute("COMMIT")
        state.close()

    def forget(self, state):
        state.close()

    def rows(self):
        connection = self.connect()
        ids = [id for (id,) in connection.execute("SELECT id FROM t").fetchall()]
        connection.close()
        return ids


class Paimon(System):
    name = "Apache Paimon, fixed buckets"
    packages = ("pypaimon",)
    how = "a primary key table, `bucket=2`; `write_arrow`, `prepare_commit`, `commit`; the last row of a key stays"
    options = {"bucket": "2", "write-only": "true"}

    @classmethod
    def load(cls):
        import pypaimon  # noqa: F401

    def catalog(self):
        from pypaimon import CatalogFactory

        return CatalogFactory.create({"warehouse": str(self.home)})

    def create(self):
        from pypaimon import Schema

        catalog = self.catalog()
        catalog.create_database("d", True)
        schema = Schema.from_pyarrow_schema(SCHEMA, primary_keys=["id"], options=self.options)
        catalog.create_table("d.t", schema, False)

    def begin(self, path):
        builder = self.catalog().get_table("d.t").new_batch_write_builder()
        write, commit = builder.new_write(), builder.new_commit()
        write.write_arrow(pq.read_table(path).cast(SCHEMA))
        return write, commit, write.prepare_commit()

    def finish(self, state):
        write, commit, messages = state
        commit.commit(messages)
        write.close()
        commit.close()

    def rows(self):
        builder = self.catalog().get_table("d.t").new_read_builder()
        return builder.new_read().to_arrow(builder.new_scan().plan().splits())["id"].to_pylist()


class PaimonDynamic(Paimon):
    name = "Apache Paimon, dynamic buckets"
    how = "the same with dynamic buckets (the default) of 500 rows; documented for one write job only"
    options = {"bucket": "-1", "write-only": "true", "dynamic-bucket.target-row-num": "500"}


ALL = {
    "dedupe": Dedupe,
    "delta": Delta,
    "iceberg": Iceberg,
    "iceberg-upsert": IcebergUpsert,
    "lance": Lance,
    "lance-declared": LanceDeclared,
    "lancedb": LanceDb,
    "lancedb-declared": LanceDbDeclared,
    "ducklake-postgres": DuckLakePostgres,
    "ducklake-upsert": DuckLakeUpsert,
    "ducklake-sqlite": DuckLakeSqlite,
    "duckdb": DuckDb,
    "paimon": Paimon,
    "paimon-dynamic": PaimonDynamic,
}
