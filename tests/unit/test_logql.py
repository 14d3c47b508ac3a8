"""The LogQL checker knows good queries from bad ones: what panels and alerts rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import logql

pytestmark = pytest.mark.skipif(logql.missing() is not None, reason=str(logql.missing()))


def test_a_metric_query_tells_its_labels_fields_grouping_and_range() -> None:
    text = (
        'sum by (service, level) (count_over_time({job="reading-hub", level=~`error|critical`} | run_id="r1" [5m])) > 0'
    )
    [query] = logql.parse([text])
    assert query.problems == ()
    assert query.kind == "metric"
    assert query.selectors == (
        (logql.Matcher("job", "=", "reading-hub"), logql.Matcher("level", "=~", "error|critical")),
    )
    assert query.labels() == {"job", "level"}
    assert query.fields == ("run_id",)
    assert query.grouping == ("service", "level")
    assert query.ranges == ("5m",)


@pytest.mark.parametrize(
    "text",
    [
        '{job="a"} | json | status >= 500 or seconds > 5s | line_format "{{.msg}}"',
        '{job="a"} |= `50 %` != "x" |~ "(?i)error" | logfmt | drop a | keep b',
        'topk by (service) (3, rate({job="a"} | unwrap seconds [1m]))',
        'sum(count_over_time({a="b"}[5m])) / on (service) group_left sum(count_over_time({a="b"}[5m])) or vector(0)',
    ],
)
def test_good_queries_have_no_problems(text: str) -> None:
    [query] = logql.parse([text])
    assert query.problems == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{job="a"', "incomplete at 8"),
        ("", "incomplete at 0"),
        ("{}", "unexpected '}' at 1"),
        ('sum({job="a"})', "unexpected ')' at 13"),
        ('{job="a"} | json [5m]', "unexpected '[' at 17"),
        ('rate({job="a"} [$__auto])', "unexpected '$' at 16"),
        ('{job=~".*", level!="x"}', "a selector must have one matcher that an absent label does not satisfy"),
        ('{job=~"a("}', "'a(' is no regular expression: missing ), unterminated subpattern at position 1"),
    ],
)
def test_bad_queries_say_what_and_where(text: str, problem: str) -> None:
    [query] = logql.parse([text])
    assert query.problems[0] == problem


def test_grafanas_variables_are_put_in_and_a_forgotten_one_is_named() -> None:
    panel = 'count_over_time({service=~"${service:regex}", level=~"$level"} |= `$1` [$__auto])'
    assert logql.interpolate(panel, {"service": "proxy|loki", "level": ".+"}) == (
        'count_over_time({service=~"proxy|loki", level=~".+"} |= `$1` [5m])'
    )
    with pytest.raises(KeyError, match="service"):
        logql.interpolate(panel, {"level": ".+"})


def test_the_queries_of_the_docs_are_good_and_use_our_labels() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text()
    [block] = re.findall(r"```logql\n(.*?)```", page, re.DOTALL)
    queries = logql.parse([line.split("  #")[0].strip() for line in block.splitlines()])
    assert len(queries) > 5
    for query in queries:
        assert query.problems == (), query.text
        assert query.labels() | set(query.grouping) <= {"container", "job", "service", "level", "unit"}
