"""The agent's commands: one JSON object on stdout, nothing else. docs/reference/agent.md lists them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, Optional, Sequence

from edgeloop_agent import cache, cleaning, folder, footprint, governor, job, runtimes
from edgeloop_agent.errors import AgentError, code_of
from edgeloop_agent.lease import LeaseFile
from edgeloop_agent.root import board_root


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AgentError("%s: %s" % (self.prog, message), "harness")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edgeloop-agent", description="The edgeloop agent on the board.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, text: str, of_job: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--state-dir", required=True)
        if of_job:
            sub.add_argument("--job", required=True)
        return sub

    probe = command("probe", "the board as it describes itself")
    probe.add_argument("--python-path", nargs="+", default=[], action="extend")
    probe.add_argument("--engine", nargs="+", default=[], action="extend")
    probe.add_argument("--power-sensor")
    probe.add_argument("--delegate-library", nargs="+", default=[], action="extend")
    receive = command("receive", "store a file from stdin")
    receive.add_argument("--name", required=True)
    receive.add_argument("--sha256", required=True)
    receive.add_argument("--bytes", type=int, required=True)
    has = command("has", "which files and runtimes are there")
    has.add_argument("names", nargs="*")
    has.add_argument("--runtime", nargs="+", default=[], action="extend")
    unpack = command("unpack", "unzip cached wheels")
    unpack.add_argument("--wheels", nargs="+", required=True)
    unpack.add_argument("--as", dest="name", required=True)
    clean = command("clean", "make room in the state folder")
    clean.add_argument("--max-mib", type=int)
    clean.add_argument("--all", action="store_true")
    lease = command("lease", "who may use the board")
    lease.add_argument("action", choices=("acquire", "renew", "release", "show"))
    lease.add_argument("--owner", default="")
    lease.add_argument("--seconds", type=float, default=0.0)
    lease.add_argument("--token")
    start = command("start", "start a job's supervisor detached", of_job=True)
    start.add_argument("--job-bytes", type=int)
    run = command("run", "supervise a job", of_job=True)
    run.add_argument("--lock-fd", type=int)
    look = command("look", "how far a job is", of_job=True)
    look.add_argument("--after", type=int, default=-1)
    look.add_argument("--wait-s", type=float, default=0.0)
    read = command("read", "bytes of a job's files", of_job=True)
    read.add_argument("--file", nargs="+", required=True, action="extend")
    command("cancel", "end a job", of_job=True)
    session = commands.add_parser("session", help="one session; for the supervisor")
    session.add_argument("--folder", required=True)
    check = commands.add_parser("import-check", help="import an engine; for probe")
    check.add_argument("--engine", required=True)
    check.add_argument("--python-path", nargs="+", default=[], action="extend")
    check = commands.add_parser("library-check", help="load a delegate's library; for probe")
    check.add_argument("--library", required=True)
    return parser


def _answer(options: argparse.Namespace, stdout: int) -> Optional[dict[str, Any]]:
    """Carry out a command. None: the answer is on stdout already."""
    if options.command == "session":
        from edgeloop_agent import session

        status = session.main(Path(options.folder))
        os._exit(status)  # a runtime that crashes while it is torn down has measured all the same
    if options.command == "import-check":
        from edgeloop_agent import probe

        return probe.import_check(options.engine, options.python_path)
    if options.command == "library-check":
        from edgeloop_agent import probe

        return probe.library_check(options.library)
    if options.command == "probe":
        from edgeloop_agent import probe

        return probe.probe(
            options.state_dir,
            options.python_path,
            options.engine,
            options.power_sensor,
            options.delegate_library,
            root=board_root().path,
        )
    state = folder.open_state_dir(options.state_dir)
    runtimes.unpack_agent(state)
    if options.command in ("start", "run"):
        return _of_job(state, options, stdout)
    governor.restore_left_behind(state, board_root())
    # Short commands leave the measuring cores, and count the time that they took of them.
    apart = footprint.step_aside(state)
    before = footprint.ticks() if apart else 0
    try:
        return _short(state, options, stdout)
    finally:
        if job.running(state) is not None:
            footprint.add(state, before if apart else footprint.ticks())


def _short(state: Path, options: argparse.Namespace, stdout: int) -> Optional[dict[str, Any]]:
    if options.command == "receive":
        return cache.receive(state, options.name, options.sha256, options.bytes, sys.stdin.buffer)
    if options.command == "has":
        return runtimes.has(state, options.names, options.runtime)
    if options.command == "unpack":
        return runtimes.unpack(state, options.wheels, options.name)
    if options.command == "clean":
        return cleaning.clean(state, options.max_mib, options.all)
    if options.command == "lease":
        return _lease(state, options)
    return _of_job(state, options, stdout)


def _lease(state: Path, options: argparse.Namespace) -> dict[str, Any]:
    lease = LeaseFile(state)
    if options.action == "acquire":
        return lease.acquire(options.owner, options.seconds, options.token)
    if options.action == "renew":
        return lease.renew(options.token or "", options.seconds)
    if options.action == "release":
        return lease.release(options.token or "")
    return {**lease.show(), "job": job.running(state)}


def _of_job(state: Path, options: argparse.Namespace, stdout: int) -> Optional[dict[str, Any]]:
    if options.command == "start":
        source = sys.stdin.buffer if options.job_bytes is not None else None
        return job.start(state, options.job, source, options.job_bytes or 0)
    if options.command == "run":
        from edgeloop_agent import supervise

        return supervise.run(state, options.job, options.lock_fd)
    if options.command == "look":
        return job.look(state, options.job, options.after, options.wait_s)
    if options.command == "read":
        job.read(state, options.job, options.file, stdout)
        return None
    return job.cancel(state, options.job)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command. Whatever prints to stdout meanwhile, native code included, goes to stderr."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = _answer(_parser().parse_args(argv), stdout)
        status = 0
    except AgentError as error:
        answer = {"error": str(error), "owner": error.owner, "code": error.code.value}
        status = 1
    except OSError as error:
        line = "%s: %s" % (error.filename or "the board", error.strerror or error)
        answer = {"error": line, "owner": "board", "code": code_of(error).value}
        status = 1
    if answer is not None:
        os.write(stdout, json.dumps(answer, allow_nan=False).encode() + b"\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
