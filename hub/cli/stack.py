"""`hub mongo`: what the services of the stack are set up with."""

from __future__ import annotations

from typing import Annotated

import typer

mongo = typer.Typer(no_args_is_help=True, help="The stack's own MongoDB.")


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
