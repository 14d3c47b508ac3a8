"""The parameters that several routes share, with what each may be."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Header, Query, Request
from pydantic import AfterValidator, BeforeValidator, Field

from hub.proxy.problems import Problem
from hub.proxy.render import choose

MAX_ROWS = 10_000
_YEARS = range(1900, 2200)
_ISO = re.compile(r"^\d{4}-\d{2}-\d{2}")


def _iso(value: object) -> object:
    if isinstance(value, str) and not _ISO.match(value):  # pydantic takes numbers too, as seconds or milliseconds
        raise ValueError("must be ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00Z")
    return value


def _in_utc(time: dt.datetime) -> dt.datetime:
    if time.year not in _YEARS:
        raise ValueError(f"must be in the years {_YEARS[0]} to {_YEARS[-1]}")
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


Time = Annotated[dt.datetime, BeforeValidator(_iso), AfterValidator(_in_utc)]
From = Annotated[Time | None, Query(alias="from", description="First time, included: ISO 8601; no offset means UTC.")]
To = Annotated[Time | None, Query(description="Last time, not included.")]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Source = Annotated[Name | None, Query(description="Only this source.")]
EventType = Annotated[Name | None, Query(description="Only this type of event.")]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS, description="Rows of a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=2_000, description="`next` of the page before. The other parameters must stay as they are."),
]
Accept = Annotated[str | None, Header(include_in_schema=False)]


async def only_known(request: Request) -> None:
    """A dependency: a parameter that is not there, a typing error mostly, is refused and not ignored."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Problem(422, f"{name[:100]}: no such parameter; there are {', '.join(sorted(known)) or 'none'}")


async def media_type(accept: Accept = None) -> str:
    """A dependency: the type that the caller likes best."""
    return choose(accept)


def window(
    start: dt.datetime | None, end: dt.datetime | None, default: dt.timedelta
) -> tuple[dt.datetime, dt.datetime]:
    """The half-open window; up to now, and of the default length, where the caller does not say."""
    until = end or dt.datetime.now(dt.UTC)
    since = start or until - default
    if since >= until:
        raise Problem(422, f"from: must be earlier than to ({until.isoformat(timespec='seconds')})")
    return since, until


def given(**parameters: str | None) -> Mapping[str, str]:
    """Those of the parameters that the caller gave."""
    return {name: value for name, value in parameters.items() if value is not None}
