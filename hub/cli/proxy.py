"""`hub proxy`: the proxy API and its tokens."""

from __future__ import annotations

from typing import Annotated

import typer

proxy = typer.Typer(no_args_is_help=True, help="The proxy API.")
token = typer.Typer(no_args_is_help=True, help="Its Bearer tokens.")
proxy.add_typer(token, name="token")


@proxy.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; PROXY_HOST by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; PORT by default.")] = None,
) -> None:
    """Serve readings, rollups and host metrics over HTTP, until SIGTERM or Ctrl-C."""
    from hub.cli.service import logged, service_settings, stopped_by_signals
    from hub.proxy.serve import serve as run

    with logged(), service_settings() as settings, stopped_by_signals():
        run(settings, host=host or settings.proxy_host, port=port or settings.port)


@token.command()
def create(
    name: Annotated[str, typer.Argument(help="Who it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="read or sync; may be given twice. read by default.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="It expires after so many days; never by default.")] = None,
) -> None:
    """Make a token and print it. It is shown this once."""
    from hub.cli.service import service_settings
    from hub.proxy import tokens
    from hub.timescale.connection import connect

    with service_settings() as settings, connect(settings) as connection:
        print(tokens.create(connection, name, set(scope or ["read"]), days=days))


@token.command("list")
def list_tokens() -> None:
    """Every token: id, name, scopes, and whether it is valid."""
    import datetime as dt

    from hub.cli.service import service_settings
    from hub.proxy import tokens
    from hub.timescale.connection import connect

    now = dt.datetime.now(dt.UTC)
    with service_settings() as settings, connect(settings) as connection:
        for found in tokens.listed(connection):
            expired = found.expires_at is not None and found.expires_at <= now
            state = "revoked" if found.revoked_at else "expired" if expired else "valid"
            until = f" until {found.expires_at:%Y-%m-%d}" if found.expires_at and state == "valid" else ""
            print(f"{found.id}  {state}{until}  {','.join(sorted(found.scopes))}  {found.name}")


@token.command()
def revoke(identifier: Annotated[str, typer.Argument(help="The id, as the list shows it.", metavar="ID")]) -> None:
    """Make a token worthless, within five seconds."""
    from hub.cli.service import service_settings
    from hub.proxy import tokens
    from hub.timescale.connection import connect

    with service_settings() as settings, connect(settings) as connection:
        print(f"The token of {tokens.revoke(connection, identifier)} is revoked.")
