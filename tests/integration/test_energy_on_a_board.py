"""Energy through the real agent: a sensor in a faked sysfs, and a meter that is a real process on this host."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaigns import run, write_local_board

from edgeloop.analysis.energy import energies, session_energy, summarise_energy
from edgeloop.board.bench import BoardBench
from edgeloop.board.local import LocalLink
from edgeloop.board.retry import RetryingBench
from edgeloop.board.wheels import WheelSet
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel, PowerMeterSpec, Runtime
from edgeloop.core.measurement import Attempt, MeasureRequest, ScheduleStep, StepKind, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import LabError, UserError
from edgeloop.ports import Progress
from edgeloop.processes.files import sha256_of
from edgeloop.records.samples import AttemptFolder

MODEL = Path(__file__).parents[1] / "data/tiny_int8.tflite"
PLAN = Plan(
    profile="quick",
    sessions=2,
    warmup_s_min=0.02,
    warmup_s_max=0.1,
    runs_min=10,
    time_s_min=0.8,
    period_ms=40.0,
    deadline_s=60,
)
# Watts grow along a line with this host's clock, so every integral is known.
RAMP = "import time\nwhile True:\n    t = time.monotonic()\n    print({line}, flush=True)\n    time.sleep(0.005)\n"
SLOPE_W_PER_S = 0.25


def ramp(line: str | None = None) -> PowerMeterSpec:
    line = line or f"{SLOPE_W_PER_S} * (t - {time.monotonic() - 8.0})"
    return PowerMeterSpec(command=(sys.executable, "-u", "-c", RAMP.format(line=line)), accuracy_pct=1.5)


def board_in(folder: Path, meter: PowerMeterSpec | None) -> Board:
    runtime = Runtime(python=sys.executable, state_dir=str(folder / "state"))
    model = BoardModel.model_validate({"schema": 1, "name": "local"})
    return Board(name="here", kind="local", model=model, runtime=runtime, power_meter=meter)


def bench_of(board: Board) -> BoardBench:
    return BoardBench(board, LocalLink(), runtime_for=lambda facts, engines: WheelSet())


def request_for(folder: Path, kinds: list[StepKind], **more: Any) -> MeasureRequest:
    artifact = Artifact(
        path=str(MODEL),
        sha256=sha256_of(MODEL),
        deployed_bytes=MODEL.stat().st_size,
        inputs=(TensorSpec(name="x", dtype="int8", shape=(1, 4, 4, 1)),),
        outputs=(TensorSpec(name="y", dtype="int8", shape=(1, 3)),),
    )
    request = MeasureRequest(
        key=str(folder),
        subjects=(Subject("candidate", artifact),),
        schedule=tuple(ScheduleStep(index, "candidate", kind) for index, kind in enumerate(kinds)),
        plan=PLAN,
        environment=Environment(),
        folder=folder / "out",
        deadline_s=120.0,
    )
    return replace(request, **more)


def silent(progress: Progress) -> None:
    pass


def hwmon(root: Path, **inputs: object) -> None:
    place = root / "sys/class/hwmon/hwmon0"
    place.mkdir(parents=True)
    for key, value in {"name": "ina226", **inputs}.items():
        (place / key).write_text(f"{value}\n")


def test_the_boards_own_sensor_is_read_while_the_session_idles_and_infers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hwmon(tmp_path / "root", power1_input=3_400_000, update_interval=4)
    monkeypatch.setenv("EDGELOOP_AGENT_ROOT", str(tmp_path / "root"))
    board = board_in(tmp_path, PowerMeterSpec(hwmon="ina226", accuracy_pct=0.5))
    request = request_for(tmp_path, ["latency", "energy"])
    attempt = bench_of(board).measure(request, silent)
    assert [s.outcome for s in attempt.sessions] == ["ok"] * 2
    assert attempt.sessions[0].power is None
    power = attempt.sessions[1].power
    assert power is not None
    assert power.meter == "ina226@hwmon0/power1"
    assert power.inferences == 20
    assert power.active_s[1] - power.active_s[0] == pytest.approx(0.8, abs=0.02)
    assert power.idle_s[1] <= power.active_s[0] - 0.5
    assert power.seconds[0] < power.idle_s[0]
    assert power.seconds[-1] > power.active_s[1]
    assert len(attempt.sessions[1].latencies_ns) == 20
    summary = summarise_energy(attempt.sessions, 0.95)
    assert summary is not None
    assert summary.problems == ()
    assert summary.per_period_mj == pytest.approx(3.4 * 40, rel=0.05)
    assert summary.above_idle_mj == pytest.approx(0, abs=1e-6)
    assert (summary.accuracy_pct, summary.clock_uncertainty_ms) == (0.5, 0)
    assert np.load(request.folder / "sessions/001.power.npy").dtype == np.float64
    again = AttemptFolder(request.folder).read().sessions[1].power
    assert again is not None
    assert np.array_equal(again.watts, power.watts)


def test_a_sensor_that_the_board_does_not_have_ends_the_job_with_those_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hwmon(tmp_path / "root", power1_input=1, power2_input=2)
    monkeypatch.setenv("EDGELOOP_AGENT_ROOT", str(tmp_path / "root"))
    board = board_in(tmp_path, PowerMeterSpec(hwmon="ina226", accuracy_pct=0.5))
    with pytest.raises(UserError, match="ina226 names 2 power sensors: ina226@hwmon0/power1, ina226@hwmon0/power2"):
        bench_of(board).measure(request_for(tmp_path, ["energy"]), silent)


def analytic_mj(attempt: Attempt, index: int, meter: PowerMeterSpec) -> tuple[float, float]:
    """Energy of a period, and above idle, of the line that the meter prints."""
    power = attempt.sessions[index].power
    assert power is not None
    began_s = float(meter.command[-1].split("(t - ")[1].split(")")[0])
    idle_w, active_w = (SLOPE_W_PER_S * (sum(w) / 2 - began_s) for w in (power.idle_s, power.active_s))
    period_ms = (power.active_s[1] - power.active_s[0]) / power.inferences * 1e3
    return active_w * period_ms, (active_w - idle_w) * period_ms


@pytest.mark.parametrize("stamped", [False, True])
def test_a_meter_on_the_host_gives_the_integral_that_its_waveform_has(tmp_path: Path, stamped: bool) -> None:
    meter = ramp()
    if stamped:  # by a clock of its own that began at another time
        code = meter.command[-1].replace("print(", "print(t + 7e4, ")
        meter = meter.model_copy(update={"command": (*meter.command[:-1], code)})
    request = request_for(tmp_path, ["energy"] if stamped else ["latency", "energy"])
    attempt = bench_of(board_in(tmp_path, meter)).measure(request, silent)
    index = 0 if stamped else 1
    power = attempt.sessions[index].power
    assert power is not None
    assert power.lost == ""
    assert 0 < power.clock_uncertainty_s < 0.25
    per_period_mj, above_idle_mj = analytic_mj(attempt, index, meter)
    found = session_energy(power)
    clock_mj = SLOPE_W_PER_S * power.clock_uncertainty_s * 40
    assert found.per_period_j * 1e3 == pytest.approx(per_period_mj, abs=clock_mj + 0.5)
    assert found.per_period_clock_j * 1e3 == pytest.approx(clock_mj, rel=0.1)
    assert found.above_idle_j * 1e3 == pytest.approx(above_idle_mj, abs=0.5)
    assert {path.name for path in (request.folder / "sessions").glob(f"00{index}.*")} == {
        f"00{index}.{part}" for part in ("json", "latency.npy", "warmup.npy", "meter.npy", "meter.json")
    }


def test_a_meter_that_dies_ends_the_measurement_as_the_labs_error_and_frees_the_board(tmp_path: Path) -> None:
    dying = f"{SLOPE_W_PER_S} if t < {time.monotonic() + 2.5} else 1 / 0"
    request = request_for(tmp_path, ["energy"] * 4)
    with pytest.raises(LabError, match=r"power meter .* ended with status 1: ZeroDivisionError") as caught:
        RetryingBench(bench_of(board_in(tmp_path, ramp(dying)))).measure(request, silent)
    assert len(caught.value.lines()) == 1
    good = bench_of(board_in(tmp_path, ramp()))
    assert good.agent.show_lease()["held"] is False
    attempt = RetryingBench(good).measure(replace(request, schedule=request.schedule[:1]), silent)
    assert energies(attempt.sessions).problems == ()


def test_sessions_that_nobody_watched_have_no_energy_and_say_so(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(progress: Progress) -> None:
        if progress.done == 1:
            raise Killed

    board, request = board_in(tmp_path, ramp()), request_for(tmp_path, ["energy"] * 2)
    with pytest.raises(Killed):
        bench_of(board).measure(request, die)
    kept = (request.folder / "sessions/000.meter.npy").read_bytes()
    watching = bench_of(board)
    (job,) = Path(board.runtime.state_dir, "jobs").iterdir()
    end_s = time.monotonic() + 60
    while watching.agent.look(job.name, after=99, wait_s=5).done is None:
        assert time.monotonic() < end_s
    attempt = watching.measure(request, silent)
    assert (request.folder / "sessions/000.meter.npy").read_bytes() == kept
    found = energies(attempt.sessions)
    assert len(found.of_sessions) == 1
    assert [problem.split(": ", 1)[1] for problem in found.problems] == [
        "the meter's readings are lost: nobody watched it then"
    ]
    summary = summarise_energy(attempt.sessions, 0.95)
    assert summary is not None
    assert (summary.sessions, len(summary.problems)) == (1, 1)


def test_energy_without_a_meter_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="here has no power meter"):
        bench_of(board_in(tmp_path, None)).measure(request_for(tmp_path, ["energy"]), silent)
    assert not (tmp_path / "state").exists()


@pytest.fixture
def metered(tmp_path: Path) -> Callable[..., Any]:
    """Runs `edgeloop measure` on a local board with a meter of 2 W, or without one."""
    (tmp_path / "meter.py").write_text(RAMP.format(line="2.0"))

    def measure(*words: str, expect: int, meter: bool = True) -> Any:
        write_local_board(tmp_path)
        if meter:
            command = json.dumps([sys.executable, str(tmp_path / "meter.py")])
            text = f"[power_meter]\ncommand = {command}\naccuracy_pct = 1.0\n"
            with (tmp_path / "here.toml").open("a") as handle:
                handle.write(text)
        plan = ("--sessions", "2", "--time-s-min", "0.8", "--runs-min", "10")
        return run("measure", MODEL, "--target", "here", *plan, *words, cwd=tmp_path, expect=expect)

    return measure


def test_measure_prints_the_energy_and_judges_a_limit_on_it(metered: Callable[..., Any]) -> None:
    words = ("--period-ms", "40", "--limit", "energy_per_period_mj=120", "--limit", "energy_above_idle_mj=5", "--json")
    told = json.loads(metered(*words, expect=0).stdout)
    energy = told["energy"]
    assert energy["per"] == "period"
    assert energy["per_period_mj"] == pytest.approx(80, rel=0.05)
    assert energy["above_idle_mj"] == pytest.approx(0, abs=0.1)
    assert energy["idle_mw"] == energy["active_mw"] == pytest.approx(2000)
    assert (energy["accuracy_pct"], energy["sessions"]) == (1.0, 2)
    assert energy["samples"] > 100
    assert energy["interval"]["confidence"] == 0.95
    low, high = energy["interval"]["per_period"]
    assert low < energy["per_period_mj"] * 0.991 < energy["per_period_mj"] * 1.009 < high
    assert energy["meter"].endswith("meter.py")
    assert energy["problems"] == []
    assert [finding["outcome"] for finding in told["findings"]] == ["PASS", "PASS"]
    assert told["latency_ns"]["p50"] > 0


@pytest.mark.parametrize(
    ("words", "meter", "said"),
    [
        (("--energy",), False, "--energy: here has no power meter; add [power_meter] to its board file"),
        (("--limit", "energy_per_period_mj=3"), True, "is about a period, and the plan has none; give period_ms"),
    ],
)
def test_what_can_not_be_measured_is_refused_at_once(
    metered: Callable[..., Any], words: tuple[str, ...], meter: bool, said: str
) -> None:
    done = metered(*words, expect=2, meter=meter)
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_dry_run_counts_the_energy_sessions(metered: Callable[..., Any]) -> None:
    told = json.loads(metered("--dry-run", "--energy", "--json", expect=0).stdout)
    assert told["energy_sessions"] == 2


def test_doctor_tells_what_the_boards_meter_reads(metered: Callable[..., Any], tmp_path: Path) -> None:
    metered("--dry-run", expect=0)  # writes the board's file
    checks = json.loads(run("targets", "doctor", "here", "--json", cwd=tmp_path, expect=0).stdout)["checks"]
    (found,) = [check for check in checks if check["name"] == "power meter"]
    assert found["state"] == "ok"
    assert "reads 2 W" in found["found"]
