"""Every query of dashboards and alerts, asked as the read-only role of a hub with data, on each level of the database.

`server` is the server of the tests with everything, Dagster's own database too; `wasm` is TimescaleDB of the
Timescale licence, for what is asked of the reading database.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from hub.settings import Settings
from hub.timescale.connection import Connection, connect
from hub.timescale.level import detect
from hub.timescale.roles import make_roles
from hub.timescale.schema import upgrade
from tests.conftest import dagster_variables
from tests.support import grafana, grafana_data
from tests.support.levels import wasm_settings  # noqa: F401
from tests.support.mongo_wire import WireServer
from tests.support.roles import as_grafana, role_set

Ask = Callable[[str, str, grafana.Range], "Answer"]
_NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}
_TIMES = {"timestamptz"}


class Answer:
    """Rows and the names and types of their columns."""

    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        assert cursor.description
        self.names = [column.name for column in cursor.description]
        self.types = [
            known.name if (known := psycopg.adapters.types.get(column.type_code)) else "?"
            for column in cursor.description
        ]
        self.rows = cursor.fetchall()

    def of(self, types: set[str]) -> list[str]:
        return [name for name, kind in zip(self.names, self.types, strict=True) if kind in types]


@pytest.fixture(scope="module")
def hub(postgres: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("grafana")
    with WireServer() as wire, role_set(
        postgres, mongo_uri=wire.uri, mongo_db_name=wire.database, mongo_collection=wire.collection,
        dagster_public_url="https://dagster.example.net", reading_compress_after_days=36_500, hub_data_dir=folder,
        backup_dir=folder / "backups",
    ) as settings:  # fmt: skip
        make_roles(settings)
        upgrade(settings)
        grafana_data.loaded(settings, wire)
        with connect(settings, autocommit=True) as connection:
            grafana_data.measured(connection)
            grafana_data.counted(connection)
            grafana_data.rolled_up(connection)
        grafana_data.backed_up(settings)
        grafana_data.ran(settings, dagster_variables(settings, settings.dagster_db_name, folder / "dagster"))
        yield settings


@pytest.fixture(scope="module")
def server(hub: Settings) -> Iterator[tuple[Ask, str]]:
    reader = as_grafana(hub)
    with (
        connect(reader, autocommit=True) as readings,
        connect(reader, database=hub.dagster_db_name, autocommit=True) as runs,
    ):
        level = detect(readings)
        yield _asker({"reading-hub": readings, "dagster": runs}, level.hypertables), f"{level.value}, {level.title}"


@pytest.fixture(scope="module")
def wasm(wasm_settings: Settings) -> Iterator[tuple[Ask, str]]:  # noqa: F811
    with connect(wasm_settings, autocommit=True) as connection:
        grafana_data.inserted(connection)
        grafana_data.measured(connection)
        grafana_data.counted(connection)
        grafana_data.rolled_up(connection)
    grafana_data.backed_up(wasm_settings)
    with connect(wasm_settings, autocommit=True) as connection:
        level = detect(connection)
        connection.execute("CREATE ROLE grafana_reads")
        for (name,) in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
        ).fetchall():
            connection.execute(sql.SQL("GRANT SELECT ON {} TO grafana_reads").format(sql.Identifier(name)))
        connection.execute("SET ROLE grafana_reads")
        yield _asker({"reading-hub": connection}, level.hypertables), f"{level.value}, {level.title}"


@pytest.fixture(params=["server", "wasm"])
def asked(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> tuple[Ask, list[grafana.Query]]:
    """A function that asks, and the queries that this server can answer."""
    ask, level = request.getfixturevalue(request.param)
    record_property("level", level)
    databases = ("reading-hub", "dagster") if request.param == "server" else ("reading-hub",)
    return ask, [query for query in grafana.queries() if query.datasource in databases]


def _asker(connections: Mapping[str, Connection], timescale: bool) -> Ask:
    def ask(datasource: str, text: str, chosen: grafana.Range) -> Answer:
        expanded = grafana.expand(text, chosen, timescale=timescale)
        return Answer(connections[datasource].execute(expanded))  # type: ignore[call-overload]

    return ask


def last(days: float, interval: str) -> grafana.Range:
    now = dt.datetime.now(dt.UTC)
    return grafana.Range(now - dt.timedelta(days=days), now + dt.timedelta(minutes=1), interval)


def variables(query: grafana.Query, **chosen: str) -> str:
    """The query with All chosen, or what is given."""
    values = grafana.every().get(query.where.split()[0], {})
    return grafana.with_variables(query.text, values | {name: chosen[name] for name in chosen if name in values})


def problems(query: grafana.Query, answer: Answer) -> list[str]:
    """What the visualization would lack of the answer."""
    numbers, found = answer.of(_NUMBERS), []

    def must(holds: object, what: str) -> None:
        if not holds:
            found.append(f"{query.where}: {what}; it has {dict(zip(answer.names, answer.types, strict=True))}")

    must(len(set(answer.names)) == len(answer.names), "a column's name occurs twice")
    must("?" not in answer.types, "a column has a type that Grafana does not know")
    if not query.table:
        must(answer.names[0] == "time" and answer.types[0] in _TIMES, "the first column is not a time called time")
        must(set(answer.names[1:]) - {"metric"} == set(numbers) and numbers, "beside metric there must be numbers only")
        must(answer.rows == sorted(answer.rows, key=lambda row: row[0]), "times do not ascend")
    elif query.kind == "stat":
        must(len(answer.rows) == 1 and len(answer.names) == 1 and numbers, "a stat is one number")
    elif query.kind in ("alert", "bargauge"):
        must(len(numbers) == 1, "there must be one number in a row")
        must(set(answer.names) - set(numbers) == set(answer.of({"text", "varchar"})), "the others must be names")
        must(query.kind == "alert" or len(answer.names) == 2, "a bar has one name and one number")
    elif query.kind == "variable":
        must(len(answer.names) == 1 and answer.of({"text", "varchar"}), "a variable has one column of text")
    else:
        named = {one["matcher"]["options"] for one in query.panel["fieldConfig"]["overrides"]}
        must({name for name in named if not name.startswith("/")} <= set(answer.names), f"overrides name {named}")
    return found


@pytest.mark.parametrize(("days", "interval"), [(0.25, "1m"), (30, "1h"), (730, "1d")])
def test_every_query_gives_its_visualization_what_it_needs(
    asked: tuple[Ask, list[grafana.Query]], days: float, interval: str
) -> None:
    ask, queries = asked
    answers = {query.where: (query, ask(query.datasource, variables(query), last(days, interval))) for query in queries}
    assert [problem for query, answer in answers.values() for problem in problems(query, answer)] == []
    assert days < 30 or [where for where, (_, answer) in answers.items() if not answer.rows] == []


def test_a_choice_narrows_what_is_asked(asked: tuple[Ask, list[grafana.Query]]) -> None:
    ask, queries = asked
    chosen = {
        "source": ("kobo", "web"), "event_type": ("session", "it's"), "host": ("o'neill",), "kind": ("drill",),
        "job": ("metrics",),
    }  # fmt: skip
    narrowed = 0
    for query in queries:
        picked = {name: grafana.literals(*values) for name, values in chosen.items()}
        if variables(query, **picked) == variables(query):
            continue
        narrowed += 1
        few = ask(query.datasource, variables(query, **picked), last(30, "1h"))
        every = ask(query.datasource, variables(query), last(30, "1h"))
        none = ask(query.datasource, variables(query, **dict.fromkeys(picked, "'no such thing'")), last(30, "1h"))
        assert few.rows, query.where
        if query.kind == "stat":
            assert none.rows != every.rows or every.rows in ([(0,)], [(None,)]), query.where
        else:
            assert not none.rows, query.where
            assert few.rows != every.rows, query.where
    assert narrowed >= 15
