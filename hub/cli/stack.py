"""`hub mongo` and `hub gateway`: what two services of the stack are set up with."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

mongo = typer.Typer(no_args_is_help=True, help="The stack's own MongoDB.")
gateway = typer.Typer(no_args_is_help=True, help="The way in for other machines (docs/gateway.md).")
user = typer.Typer(
    no_args_is_help=True, help="Who is let in. The gateway looks when it starts, or is told by `make gateway-user`."
)
gateway.add_typer(user, name="user")

Name = Annotated[str, typer.Argument(help="As they type it: lower-case letters, digits, '.', '_', '@', '-'.")]


@user.command("add")
def user_add(
    name: Name,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Take the password from standard input; else one is made.")
    ] = False,
) -> None:
    """Let somebody in by the gateway, or give them a new password. It is printed once and kept as a hash."""
    from hub.gateway import add
    from hub.settings import load_web_settings

    given = sys.stdin.readline().rstrip("\n") if password_stdin else None
    password = add(load_web_settings().gateway_dir, name, given)
    print(f"{name} may come in." if given else f"{name} may come in with the password {password}")


@user.command("remove")
def user_remove(name: Name) -> None:
    """Let somebody in no more."""
    from hub.gateway import remove
    from hub.settings import load_web_settings

    remove(load_web_settings().gateway_dir, name)
    print(f"{name} may come in no more.")


@user.command("list")
def user_list() -> None:
    """Who is let in."""
    from hub.gateway import names
    from hub.settings import load_web_settings

    print("\n".join(names(load_web_settings().gateway_dir)) or "Nobody is: `hub gateway user add NAME`.")


@mongo.command("initiate")
def mongo_initiate(
    name: Annotated[str, typer.Argument(help="The replica set, as mongod has it by --replSet.")],
    member: Annotated[str, typer.Argument(help="HOST:PORT of the server; a MONGO_URI of another one is left alone.")],
) -> None:
    """Make the stack's MongoDB a replica set of one, which has change streams. Safe to run again."""
    from hub.cli.service import logged, service_settings

    with logged() as say, service_settings() as settings:
        from hub.replica_set import initiate

        say(initiate(settings, name, member))
