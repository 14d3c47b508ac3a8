"""LogQL on any machine with Node: Grafana's own parser of `tests/support/lezer`, and Grafana's variables put in."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import node

FOLDER = Path(__file__).parent / "lezer"

# What Grafana itself puts into a Loki query before it sends it.
GRAFANA = {"__auto": "5m", "__interval": "1m", "__interval_ms": "60000", "__range": "6h", "__range_s": "21600",
           "__range_ms": "21600000", "__rate_interval": "5m"}  # fmt: skip
_VARIABLE = re.compile(r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?::\w+)?\})")


@dataclass(frozen=True)
class Matcher:
    """One condition of a stream selector, `label operator "value"`; the value without its quotes."""

    label: str
    operator: str
    value: str

    def takes_missing(self) -> bool:
        """Whether a stream without the label matches; Loki refuses a selector of such matchers only."""
        if self.operator in ("=", "!="):
            return (self.value == "") == (self.operator == "=")
        return (re.fullmatch(self.value, "") is not None) == (self.operator == "=~")


@dataclass(frozen=True)
class Query:
    """A parsed query: `kind` is "log" or "metric" (None if nothing was recognized), `problems` what is wrong with it.

    `selectors` has the matchers of each stream selector, `fields` the names in label filters after it, `grouping`
    the labels of `by` and `without`, `ranges` the text inside each [ ].
    """

    text: str
    kind: str | None
    problems: tuple[str, ...]
    selectors: tuple[tuple[Matcher, ...], ...]
    fields: tuple[str, ...]
    grouping: tuple[str, ...]
    ranges: tuple[str, ...]

    def labels(self) -> set[str]:
        """Names of the labels that select streams: these must be labels in Loki, not structured metadata."""
        return {matcher.label for selector in self.selectors for matcher in selector}


def missing() -> str | None:
    """Why LogQL cannot be parsed here, None if it can."""
    return node.missing("the LogQL of panels and alerts was not parsed")


def interpolate(query: str, variables: Mapping[str, str] | None = None) -> str:
    """Put `variables` and Grafana's own ($__auto, $__range, …) into a panel's query; KeyError names one not given."""
    values = GRAFANA | dict(variables or {})
    return _VARIABLE.sub(lambda found: values[found["plain"] or found["braced"]], query)


def parse(queries: Sequence[str]) -> list[Query]:
    """Parse each query (variables already put in) in one Node process; never raises for a bad query."""
    node.install(FOLDER)
    lines = "".join(json.dumps(query) + "\n" for query in queries)
    done = subprocess.run(
        ["node", "check.mjs"], cwd=FOLDER, input=lines, capture_output=True, text=True, timeout=600, check=True
    )
    return [_query(text, json.loads(line)) for text, line in zip(queries, done.stdout.splitlines(), strict=True)]


def _query(text: str, found: dict[str, list]) -> Query:
    selectors = tuple(tuple(Matcher(**matcher) for matcher in selector) for selector in found["selectors"])
    problems = [f"unexpected {error['text']!r} at {error['at']}" if error["text"] else f"incomplete at {error['at']}"
                for error in found["errors"]]  # fmt: skip
    for matcher in (matcher for selector in selectors for matcher in selector if "~" in matcher.operator):
        try:
            re.compile(matcher.value)
        except re.error as error:
            problems.append(f"{matcher.value!r} is no regular expression: {error}")
    if not problems and any(all(matcher.takes_missing() for matcher in selector) for selector in selectors):
        problems.append("a selector must have one matcher that an absent label does not satisfy")
    return Query(
        text, found["kind"], tuple(problems), selectors, tuple(found["fields"]), tuple(found["grouping"]),
        tuple(found["ranges"]),
    )  # fmt: skip
