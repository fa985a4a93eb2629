"""The conditions of a measurement: samples of a board, the conditions of one session, and their digest.

A board's words are data, never trusted: `read_conditions` refuses every value that is not of the protocol's type, and
rules can trust the attributes that they read. Keys that an older agent did not write have the value of "not known";
keys of a newer agent are kept as they are, in bounded JSON, and written back. docs/reference/agent.md has the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from edgeloop.core.frozen import Frozen

_TEXT_MAX = 1000


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


Number = StrictInt | StrictFloat
Text = Annotated[StrictStr, StringConstraints(max_length=_TEXT_MAX), AfterValidator(_check_printable)]
Count = Annotated[StrictInt, Field(ge=0)]


class ConditionsError(ValueError):
    """Conditions with values of other types than the protocol's, by their keys."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(", ".join(keys))
        self.keys = keys


class _Reported(Frozen):
    """A value out of a board's record. What was not in the record is not written back either."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    @property
    def is_empty(self) -> bool:
        """True where the record says nothing."""
        return not self.model_fields_set

    @model_serializer(mode="wrap")
    def _as_it_came(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        names = type(self).model_fields
        absent = {field.alias or name for name, field in names.items() if name not in self.model_fields_set}
        return {key: value for key, value in serialize(self).items() if key not in absent}


class ThrottleFlags(_Reported):
    """The flags of a Raspberry Pi's firmware, by name."""

    now: tuple[Text, ...] = ()
    sticky: tuple[Text, ...] = ()
    """Set at some time since boot."""
    raw: Number = 0
    source: Text = ""


class SupplyState(_Reported):
    """Under-voltage now, and at some time since boot; None where that is not known."""

    now: StrictBool | None = None
    sticky: StrictBool | None = None
    source: Text = ""


class ConditionSample(_Reported):
    """One look at a board. A key that is None or empty was not read."""

    monotonic_ns: Number | None = None
    realtime_minus_monotonic_ns: Number | None = None
    clock_firmware_mhz: Number | None = None
    clock_kernel_mhz: Number | None = None
    core_volts: Number | None = None
    foreign_load_pct: Number | None = None
    load1: Number | None = None
    mem_available_bytes: Number | None = None
    swap_in_pages: Number | None = None
    swap_out_pages: Number | None = None
    major_faults: Number | None = None
    oom_kills: Number | None = None
    boot_id: Text | None = None
    clocksource: Text | None = None
    firmware_problem: Text | None = None
    boost: StrictBool | None = None
    throttling_known: StrictBool | None = None
    in_window: StrictBool | None = Field(default=True, alias="timed")
    """Inside the timed window; an agent that does not say which counts them all."""
    temperatures_c: dict[Text, Number] = {}
    fans_rpm: dict[Text, Number] = {}
    clock_mhz: dict[Text, Number] = {}
    """By core, as the kernel says."""
    clock_max_mhz: dict[Text, Number] = {}
    """By core: what the kernel allows."""
    clock_hardware_max_mhz: dict[Text, Number] = {}
    throttle_counts: dict[Text, Number] = {}
    pressure_us: dict[Text, Number] = {}
    governor: dict[Text, Text] = {}
    """By core."""
    cooling: dict[Text, tuple[Number, Number]] = {}
    """By device: its step, and the highest one."""
    throttle_flags: ThrottleFlags | None = Field(default=None, alias="throttled")
    supply: SupplyState | None = Field(default=None, alias="under_voltage")
    foreign_top: tuple[Text, ...] = ()
    unknown: tuple[Text, ...] = ()

    @property
    def hottest_c(self) -> float | None:
        return max(map(float, self.temperatures_c.values()), default=None)

    @property
    def shows_throttling(self) -> bool:
        """True where throttling would be seen on this board."""
        if "throttling_known" in self.model_fields_set:
            return self.throttling_known is True
        return self.throttle_flags is not None


class GovernorSetting(_Reported):
    """The governor that was asked for, and whether it is in force."""

    name: Text = Field(default="", alias="asked")
    is_set: StrictBool | None = Field(default=None, alias="set")
    """None where none was asked for."""
    available: tuple[Text, ...] = ()
    detail: Text = ""


class _Waiting(_Reported):
    applies: StrictBool = Field(default=False, alias="asked")
    has_passed: StrictBool | None = Field(default=None, alias="passed")
    """None where that can't be read."""
    detail: Text = ""


class IdleGate(_Waiting):
    """The wait for an idle and cool board before the first session."""

    waited_s: Number = 0.0


class Soak(_Waiting):
    """The load before the first session, until the temperature is flat."""

    took_s: Number = 0.0
    start_c: Number | None = None
    end_c: Number | None = None
    slope_c_per_min: Number | None = None
    window_s: Number | None = None
    slope_max_c_per_min: Number | None = None
    end: ConditionSample = ConditionSample()
    """The soaked board."""


class DelegateCount(_Reported):
    """The operators of a model's file that a delegate took."""

    name: Text
    operators: Count
    operators_taken: Count = Field(alias="taken")
    pieces: Count

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> Self:
        if self.operators_taken > self.operators:
            raise ValueError("more operators are taken than there are")
        return self


class SessionConditions(_Reported):
    """The conditions of one session."""

    before: ConditionSample = ConditionSample()
    during: tuple[ConditionSample, ...] = ()
    after: ConditionSample = ConditionSample()
    calibration_ns: tuple[Number | None, ...] | None = None
    """The calibration loop at the start and at the end of the timed window."""
    timed_window_monotonic_ns: tuple[Number, ...] | None = None
    samples_cycled: Number | None = None
    pinned_cores: tuple[Number, ...] | None = None
    idle_before_s: Number | None = None
    """Without load before the session."""
    governor: GovernorSetting = GovernorSetting()
    gate: IdleGate = IdleGate()
    soak: Soak = Soak()
    stand_in: Text | None = None
    """The folder that stood for the board's own files."""
    delegate: DelegateCount | None = None
    unknown: tuple[Text, ...] = ()

    @property
    def samples(self) -> list[ConditionSample]:
        """All of them in the order of time; empty ones are left out."""
        return [sample for sample in (self.before, *self.during, self.after) if not sample.is_empty]

    @property
    def in_window(self) -> list[ConditionSample]:
        """The samples inside the timed window."""
        return [sample for sample in self.during if sample.in_window]


def read_conditions(plain: Mapping[str, object]) -> SessionConditions:
    """Return the conditions of a record. Raises ConditionsError with the keys whose values are of other types."""
    try:
        return SessionConditions.model_validate(plain)
    except ValidationError as error:
        keys = (str(item["loc"][0]) for item in error.errors(include_url=False, include_input=False) if item["loc"])
        raise ConditionsError(tuple(dict.fromkeys(keys))) from error


Range = tuple[float, float]
"""The lowest and the highest."""


class ConditionsDigest(Frozen):
    """The conditions of many sessions in a few figures. None: nothing of it could be read, and it is not written."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    temperature_c: Range | None = None
    clock_mhz: Range | None = None
    fans_rpm: Range | None = None
    clock_firmware_mhz: Range | None = None
    core_volts: Range | None = None
    governor: tuple[str, ...] | None = None
    boost: str | None = None
    """`on`, `off` or `changed`."""
    foreign_load_pct_max: float | None = None
    foreign: tuple[str, ...] | None = None
    """Names of the processes that took most."""
    throttle_flags: tuple[str, ...] | None = Field(default=None, alias="throttled")
    """Set in any sample."""
    throttled_since_boot: tuple[str, ...] | None = None
    under_voltage: str | None = None
    """`now`, `since boot` or `no`."""
    cooling: str | None = None
    throttle_count: int | None = None
    """The most of any session."""
    major_faults: int | None = None
    """Of all sessions together."""
    pressure: str | None = None
    """The largest share of time that tasks were held up by one of the board's resources."""
    calibration_ns: Range | None = None
    """The fastest and the slowest calibration loop. The fastest says how fast this very board is."""
    slow_sessions: str | None = Field(default=None, alias="slowed")
    """Sessions whose cores changed their speed between the loops, whatever the cause."""
    gate: str | None = None
    soak: str | None = None
    boot_ids: tuple[str, ...] | None = None
    pinned_cores: tuple[Number, ...] | None = None

    @model_serializer(mode="wrap")
    def _known_only(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

    @property
    def is_empty(self) -> bool:
        return not self.entries()

    def entries(self) -> dict[str, Any]:
        """The figures that are known, by the keys of JSON documents."""
        return self.model_dump(mode="json")
