"""The board's power sensor: found by its name under a faked sysfs, unambiguous, read at random times."""

from __future__ import annotations

import array
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.core.board import SENSOR_PATTERN, PowerMeterSpec
from edgeloop_agent import power
from edgeloop_agent.errors import AgentError


def hwmon(root: Path, number: int, name: str, device: str = "", **inputs: object) -> Path:
    place = root / f"sys/class/hwmon/hwmon{number}"
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    if device:
        (root / "sys/devices" / device).mkdir(parents=True, exist_ok=True)
        (place / "device").symlink_to(root / "sys/devices" / device)
    for key, value in inputs.items():
        (place / key).write_text(f"{value}\n")
    return place


def test_a_sensor_is_found_by_its_name_and_says_which_it_is(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "cpu_thermal", temp1_input=45000)
    hwmon(tmp_path, 3, "ina226", "1-0040", power1_input=3_412_000, in1_input=5100, curr1_input=669, update_interval=140)
    sensor = power.find("ina226", tmp_path)
    assert sensor.label == "ina226@1-0040/power1"
    assert sensor.watts() == pytest.approx(3.412)
    assert sensor.update_s == 0.14
    assert sensor.interval_s == power.INTERVAL_S
    assert power.find("ina226@1-0040/power1", tmp_path) == sensor


def test_without_a_power_input_voltage_and_current_of_one_number_are_multiplied(tmp_path: Path) -> None:
    hwmon(
        tmp_path, 0, "ina3221", "1-0041", in1_input=5000, curr1_input=600, in2_input=3300, curr2_input=-10, in9_input=1
    )
    assert power.find("ina3221/curr1", tmp_path).watts() == pytest.approx(3.0)
    assert power.find("ina3221/curr2", tmp_path).watts() == pytest.approx(-0.033)


def test_a_name_that_several_have_is_refused_with_what_tells_them_apart(tmp_path: Path) -> None:
    for number, device in enumerate(("1-0040", "1-0041")):
        hwmon(tmp_path, number, "ina226", device, power1_input=1, power2_input=2)
    with pytest.raises(AgentError, match="ina226 names 4 power sensors: ina226@1-0040/power1, ") as caught:
        power.find("ina226", tmp_path)
    assert caught.value.owner == "user"
    assert power.find("ina226@1-0041/power2", tmp_path).watts() == pytest.approx(2e-6)
    with pytest.raises(AgentError, match="names 2 power sensors"):
        power.find("ina226/power2", tmp_path)


def test_a_sensor_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="no power sensor ina226; found: none"):
        power.find("ina226", tmp_path)
    hwmon(tmp_path, 0, "ina219", "1-0045", power1_input=1)
    with pytest.raises(AgentError, match=r"found: ina219@1-0045/power1"):
        power.find("ina226", tmp_path)


@pytest.mark.parametrize(("value", "said"), [("", "reads ''"), ("3.4", "reads '3.4'"), ("rubbish", "reads 'rubbish'")])
def test_what_is_no_number_is_named(tmp_path: Path, value: str, said: str) -> None:
    place = hwmon(tmp_path, 0, "ina226", power1_input=1)
    (place / "power1_input").write_text(value)
    assert said in (power.describe("ina226", tmp_path)["error"] or "")
    (place / "power1_input").unlink()
    (place / "power1_input").mkdir()
    assert "can't be read" in (power.describe("ina226", tmp_path)["error"] or "")


def test_probe_is_told_what_the_sensor_reads(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "ina226", "1-0040", power1_input=2_000_000, update_interval=2)
    assert power.describe("ina226", tmp_path) == {
        "sensor": "ina226@1-0040/power1",
        "watts": pytest.approx(2.0),
        "interval_s": power.INTERVAL_S_MIN,
        "update_s": 0.002,
        "error": None,
    }


@given(st.text(max_size=90))
def test_what_the_host_takes_for_a_sensors_name_the_agent_takes_too(text: str) -> None:
    try:
        PowerMeterSpec(hwmon=text, accuracy_pct=1)
    except ValueError:
        return
    assert power.NAME.match(text), SENSOR_PATTERN


class FakeTime:
    """A clock that moves when it is waited on, and calls somebody at a time."""

    def __init__(self, ends_s: float, at_s: float = 0.0, call: Callable[[], None] = lambda: None) -> None:
        self.now_s, self._ends_s, self._at_s, self._call = 100.0, 100.0 + ends_s, 100.0 + at_s, call

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def wait(self, seconds: float) -> bool:
        if self.now_s < self._at_s <= self.now_s + seconds:
            self._call()
        self.now_s += seconds
        return self.now_s > self._ends_s


def test_readings_come_at_drawn_times_one_in_each_interval(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "ina226", power1_input=1_500_000)
    clock = FakeTime(ends_s=20.0)
    sampler = power.Sampler(power.find("ina226", tmp_path), 4, clock.now_ns, clock.wait)
    sampler.start()
    sampler.stop()
    seconds = np.array(sampler.seconds)
    assert np.array(sampler.watts) == pytest.approx(1.5)
    assert seconds[0] == pytest.approx(100.0)
    assert seconds[-1] == pytest.approx(clock.now_s)
    drawn = (seconds[1:-1] - 100.0) / power.INTERVAL_S
    assert np.floor(drawn + 1e-6).astype(int).tolist() == list(range(len(drawn)))
    assert len(drawn) == pytest.approx(20.0 / power.INTERVAL_S, abs=1)
    assert np.histogram(drawn % 1, 4)[0].min() > 60, "phases are spread over the whole interval"


def test_readings_that_fall_behind_are_left_out_and_not_made_up_in_a_burst(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "ina226", power1_input=1)
    clock = FakeTime(ends_s=4.0, at_s=2.0)
    clock._call = lambda: setattr(clock, "now_s", clock.now_s + 1.0)  # the reader was held up for a second
    sampler = power.Sampler(power.find("ina226", tmp_path), 0, clock.now_ns, clock.wait)
    sampler.start()
    sampler.stop()
    gaps = np.diff(sampler.seconds)
    assert (gaps > 0.9).sum() == 1
    assert len(gaps) == pytest.approx(3.0 / power.INTERVAL_S, abs=3)


def test_a_sensor_that_fails_meanwhile_is_told_at_the_end(tmp_path: Path) -> None:
    place = hwmon(tmp_path, 0, "ina226", power1_input=1)
    clock = FakeTime(ends_s=5.0, at_s=1.0, call=(place / "power1_input").unlink)
    sampler = power.Sampler(power.find("ina226", tmp_path), 0, clock.now_ns, clock.wait)
    sampler.start()
    with pytest.raises(AgentError, match="ina226@hwmon0/power1 can't be read"):
        sampler.stop()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40))
def test_an_array_written_without_numpy_is_one_that_numpy_reads(values: list[float]) -> None:
    seconds, watts = array.array("d", values), array.array("d", reversed(values))
    with tempfile.TemporaryDirectory() as folder:
        power.write_npy(Path(folder, "power.npy"), seconds, watts)
        found = np.load(Path(folder, "power.npy"), allow_pickle=False)
    assert (found.dtype, found.shape) == (np.float64, (2, len(values)))
    assert found[0].tolist() == values
    assert found[1].tolist() == values[::-1]
