"""The command `edgeloop`: the one top handler, so that every end has an exit code and no end is a traceback."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import NoReturn

_TYPER_INTERRUPTED = 130
"""The exit code that typer makes of Ctrl-C."""


def main() -> None:
    """Run the command line. Exit codes: 0 passed, 1 none passed, 2 bad input, 3 could not tell."""
    from edgeloop.cli import app
    from edgeloop.cli.words import spell
    from edgeloop.errors import EdgeloopError, one_line

    try:
        app(prog_name="edgeloop")
    except EdgeloopError as error:
        for line in error.lines(spell):
            print(f"edgeloop: {line}", file=sys.stderr)  # noqa: T201 -- the last word, before any console exists
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _interrupt()
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            _interrupt()
        raise
    except Exception as error:
        print(f"edgeloop: crashed: {one_line(error)}; {_keep_traceback(error)}", file=sys.stderr)  # noqa: T201 -- as above
        sys.exit(3)


def _interrupt() -> NoReturn:
    print("edgeloop: interrupted", file=sys.stderr)  # noqa: T201 -- as above
    sys.exit(3)


def _keep_traceback(error: Exception) -> str:
    """Keep the traceback in a file and say where; a full or read-only disk must not hide the crash itself."""
    from platformdirs import user_state_path

    path = Path(user_state_path("edgeloop")) / "crash.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return "please report it with the command you ran"
    return f"please report it with {path}"


if __name__ == "__main__":
    main()
