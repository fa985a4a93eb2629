"""The command `edgeloop`: the one top handler, so that every end has an exit code and no end is a traceback."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import NoReturn

_TYPER_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def main() -> None:
    """Run the command line. Exit codes: 0 passed, 1 none passed, 2 bad input, 3 could not tell."""
    from edgeloop.cli import app
    from edgeloop.errors import EdgeloopError

    try:
        app(prog_name="edgeloop")
    except EdgeloopError as error:
        for line in error.lines():
            print(f"edgeloop: {line}", file=sys.stderr)  # noqa: T201 -- the last word, before any console exists
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == _TYPER_INTERRUPTED:
            _interrupted()
        raise
    except Exception as error:
        print(f"edgeloop: crashed: {_one_line(error)}; {_kept(error)}", file=sys.stderr)  # noqa: T201 -- as above
        sys.exit(3)


def _interrupted() -> NoReturn:
    print("edgeloop: interrupted; a run goes on with --resume", file=sys.stderr)  # noqa: T201 -- as above
    sys.exit(3)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def _kept(error: Exception) -> str:
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
