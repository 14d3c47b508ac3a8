"""The command line `hub`: a thin skin over the engine."""

from __future__ import annotations

import sys

from hub.errors import HubError, SettingsError


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 a setting or an argument is wrong."""
    from hub.cli.app import app

    try:
        app()
    except SettingsError as error:
        print(f"hub: {error}", file=sys.stderr)
        sys.exit(2)
    except HubError as error:
        print(f"hub: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
