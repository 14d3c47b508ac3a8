"""The command line: `python3 -m hub.gitops sync|plan|status …`, also the entry of the zipapp.

Everything is imported here, before any work: the agent may run from the very tree that it moves.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import config as configuration
from . import status as status_module
from .errors import EXIT_FAILED, EXIT_OK, GitopsError
from .log import Log, Redactor, plain
from .sync import plan_only, sync


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config-dir", type=Path, default=configuration.CONFIG_DIR, help="default: %(default)s")
    common.add_argument("--state-dir", type=Path, default=configuration.STATE_DIR, help="default: %(default)s")
    top = argparse.ArgumentParser(
        prog="hub gitops", description="Keeps a clone in step with its branch, and the stack with it."
    )
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "sync", parents=[common], help="fetch, check, deploy, wait for health, go back if it fails"
    )
    one.add_argument("name")
    two = commands.add_parser("plan", parents=[common], help="say what sync would do, and change nothing")
    two.add_argument("name")
    two.add_argument("--json", action="store_true")
    three = commands.add_parser("status", parents=[common], help="what is true now; exit code 1 unless all is in step")
    three.add_argument("name", nargs="?")
    three.add_argument("--json", action="store_true")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 1 failed, 2 misconfigured, 3 refused, 75 postponed."""
    args = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the host's locale is, a letter must not end a run
            stream.reconfigure(errors="backslashreplace")
    log = Log(args.name or "-", Redactor())
    try:
        if args.command == "status":
            return _status(args)
        config = configuration.load(args.name, args.config_dir, args.state_dir)
    except GitopsError as error:
        log.error(str(error), result=error.result, kind=error.kind)
        return error.code
    if args.command == "sync":
        return sync(config, log).code
    outcome = plan_only(config, log)
    if args.json:
        print(
            json.dumps(
                {
                    "name": args.name,
                    "result": outcome.result,
                    "kind": outcome.kind,
                    "message": log.redact(outcome.message),
                    "plan": outcome.plan,
                }
            )
        )
        return outcome.code
    lines = [plain(outcome.message)] if outcome.code == EXIT_OK else []
    lines += [f"  {log.redact(line)}" for line in outcome.plan]
    if lines:
        print("\n".join(lines))
    if outcome.code != EXIT_OK:
        log.error(outcome.message, result=outcome.result, kind=outcome.kind)
    return outcome.code


def _status(args: argparse.Namespace) -> int:
    names = [args.name] if args.name else configuration.names(args.config_dir)
    found = []
    for name in names:
        try:
            config = configuration.load(name, args.config_dir, args.state_dir)
            found.append(status_module.collect(config, Log(name, Redactor())))
        except GitopsError as error:
            found.append(status_module.broken(name, error))
    if args.json:
        print(json.dumps(found[0] if args.name else found, indent=1, sort_keys=True))
    else:
        print("\n".join(status_module.text(item) for item in found) or "no deployment is on the allowlist")
    return EXIT_OK if all(item["in_step"] for item in found) else EXIT_FAILED


if __name__ == "__main__":
    # All is imported: from here on a file of the tree being moved must not be able to stand in for a module.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path.cwd()]
    sys.exit(main())
