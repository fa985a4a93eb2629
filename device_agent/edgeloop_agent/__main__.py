"""The agent's commands: one JSON object on stdout, nothing else. docs/reference/agent.md lists them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, Optional, Sequence

from edgeloop_agent import cache, folder, footprint, governor, job
from edgeloop_agent.lease import LeaseFile
from edgeloop_agent.root import chosen


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise folder.AgentError("%s: %s" % (self.prog, message), "harness")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edgeloop-agent", description="The edgeloop agent on the board.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name: str, text: str, of_job: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--state-dir", required=True)
        if of_job:
            added.add_argument("--job", required=True)
        return added

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


def _answer(asked: argparse.Namespace, stdout: int) -> Optional[dict[str, Any]]:
    """Do what is asked. None: the answer is on stdout already."""
    if asked.command == "session":
        from edgeloop_agent import session

        status = session.main(Path(asked.folder))
        os._exit(status)  # a runtime that crashes while it is torn down has measured all the same
    if asked.command == "import-check":
        from edgeloop_agent import probe

        return probe.import_check(asked.engine, asked.python_path)
    if asked.command == "library-check":
        from edgeloop_agent import probe

        return probe.library_check(asked.library)
    if asked.command == "probe":
        from edgeloop_agent import probe

        return probe.probe(
            asked.state_dir,
            asked.python_path,
            asked.engine,
            asked.power_sensor,
            asked.delegate_library,
            root=chosen().path,
        )
    state = folder.open_state_dir(asked.state_dir)
    cache.unpack_agent(state)
    if asked.command in ("start", "run"):
        return _of_job(state, asked, stdout)
    governor.restore_left_behind(state, chosen())
    # Short commands leave the measuring cores, and say what they took of them.
    apart = footprint.step_aside(state)
    before = footprint.ticks() if apart else 0
    try:
        return _short(state, asked, stdout)
    finally:
        if job.running(state) is not None:
            footprint.add(state, before if apart else footprint.ticks())


def _short(state: Path, asked: argparse.Namespace, stdout: int) -> Optional[dict[str, Any]]:
    if asked.command == "receive":
        return cache.receive(state, asked.name, asked.sha256, asked.bytes, sys.stdin.buffer)
    if asked.command == "has":
        return cache.has(state, asked.names, asked.runtime)
    if asked.command == "unpack":
        return cache.unpack(state, asked.wheels, asked.name)
    if asked.command == "clean":
        return cache.clean(state, asked.max_mib, asked.all)
    if asked.command == "lease":
        return _lease(state, asked)
    return _of_job(state, asked, stdout)


def _lease(state: Path, asked: argparse.Namespace) -> dict[str, Any]:
    lease = LeaseFile(state)
    if asked.action == "acquire":
        return lease.acquire(asked.owner, asked.seconds, asked.token)
    if asked.action == "renew":
        return lease.renew(asked.token or "", asked.seconds)
    if asked.action == "release":
        return lease.release(asked.token or "")
    return {**lease.show(), "job": job.running(state)}


def _of_job(state: Path, asked: argparse.Namespace, stdout: int) -> Optional[dict[str, Any]]:
    if asked.command == "start":
        source = sys.stdin.buffer if asked.job_bytes is not None else None
        return job.start(state, asked.job, source, asked.job_bytes or 0)
    if asked.command == "run":
        from edgeloop_agent import supervise

        return supervise.run(state, asked.job, asked.lock_fd)
    if asked.command == "look":
        return job.look(state, asked.job, asked.after, asked.wait_s)
    if asked.command == "read":
        job.read(state, asked.job, asked.file, stdout)
        return None
    return job.cancel(state, asked.job)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command. Whatever prints to stdout meanwhile, native code included, goes to stderr."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = _answer(_parser().parse_args(argv), stdout)
        status = 0
    except folder.AgentError as error:
        answer = {"error": str(error), "owner": error.owner, **error.more}
        status = 1
    except OSError as error:
        answer = {"error": "%s: %s" % (error.filename or "the board", error.strerror or error), "owner": "board"}
        status = 1
    if answer is not None:
        os.write(stdout, json.dumps(answer, allow_nan=False).encode() + b"\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
