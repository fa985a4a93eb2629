"""Schedules for one core: what TVM would leave as plain loops is tiled, vectorized and kept in registers.

A lowered network is a handful of functions with channels last: maybe a copy that pads, one reduction (a convolution, a
product, a mean), and what is fused behind it. The reduction is computed for a tile of positions x channels at a time,
where the result's last steps are: the tile's sums fit into registers, its channels are the lanes of a vector. A rule
chooses the numbers of a tile; tuning.py measures others in their place. On networks of these sizes that is near
LiteRT's hand-written kernels; TVM's own default takes up to 40 times as long (docs/results/engines.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log2
from typing import Any, Literal

from edgeloop.builders.tvm.dot import ANNOTATION, DOTS, Dot
from edgeloop.core.frozen import Frozen

LANES = (16, 8, 4, 2)
"""Lengths of vectors, the longest that divides the channels: 16 is one of AVX-512, and four of a Cortex-A."""
CHANNELS_MAX = 32
POSITIONS_MAX = 8
"""Of the rule's tile. What a tile sums is kept in registers, so that there are not more sums than those hold."""
SUMS_MAX = {"aarch64": 96, "x86_64": 256}
_SPACE = 2
"""Tuning tries so many times the rule's sums and positions."""
_VECTORS_MAX = 8
_UNROLLED_MAX = 3
_PADDED_INSIDE_MAX = 4
_REDUCTION = 2  # tirx.IterVar.CommReduce


class TileChoice(Frozen):
    """The numbers of a function's tile."""

    lanes: int
    channels: int
    """Of a tile: whole vectors."""
    positions: int
    padding: Literal["copied", "inside"]
    """A padded copy of the input is made first, or every load looks whether it is in the padding."""

    def __str__(self) -> str:
        return f"{self.positions} x {self.channels} in {self.lanes} lanes, padding {self.padding}"


def schedule_module(module: Any, machine: str, choices: Mapping[str, TileChoice] | None = None) -> Any:
    """The module with a schedule for each of its lowered functions. What the rule does not fit stays as it was.

    `choices` are those by workload that take the place of the rule's.
    """
    from tvm import s_tir

    for name, function in lowered_functions(module):
        try:
            choice = (choices or {}).get(workload_of(function)) or choose_by_rule(function, machine)
            scheduled_function = schedule_with(function, choice)
        except s_tir.ScheduleError as error:
            print(f"left as plain loops: {name}: {str(error).strip().splitlines()[-1]}")  # noqa: T201 -- the child's log
            continue
        module.update_func(module.get_global_var(name), scheduled_function)
    return module


def lowered_functions(module: Any) -> list[tuple[str, Any]]:
    """The lowered functions of a module by name."""
    from tvm import tirx

    return [(name.name_hint, f) for name, f in module.functions.items() if isinstance(f, tirx.PrimFunc)]


def workload_of(function: Any) -> str:
    """A digest of what a lowered function computes, whatever its variables are called."""
    import tvm_ffi

    return f"{tvm_ffi.structural_hash(function, map_free_vars=True) & (1 << 64) - 1:016x}"


def schedule_with(function: Any, choice: TileChoice | None) -> Any:
    """The function in a choice's schedule; without one its last loops are vectorized. Raises ScheduleError."""
    schedule = _begin(function)
    blocks = _blocks(schedule)
    at = _reduction_at(schedule, blocks)
    if at is None or choice is None:
        for block in blocks:
            _vectorize(schedule, block)
    else:
        _fuse(schedule, blocks, at, choice)
    return schedule.mod["main"].without_attr("global_symbol")


def choose_by_rule(function: Any, machine: str) -> TileChoice | None:
    """Return the choice where nothing was tuned; None where there is not just one reduction."""
    extents = _extents(function)
    if extents is None:
        return None
    channels, positions, sum_length = extents
    dot = _dot_of(function)
    lanes = dot.lanes if dot else next((n for n in LANES if channels % n == 0), 1)
    together = lanes * _divisor(channels // lanes, CHANNELS_MAX // lanes)
    along = _divisor(positions, max(1, min(POSITIONS_MAX, SUMS_MAX[machine] // together)))
    inside = dot is None and sum_length <= _PADDED_INSIDE_MAX and _pads(function)
    padding: Literal["copied", "inside"] = "inside" if inside else "copied"
    return TileChoice(lanes=lanes, channels=together, positions=along, padding=padding)


def list_choices(function: Any, machine: str) -> list[TileChoice]:
    """Return what tuning may try of a function: the rule's choice, then the others from the nearest to the farthest.

    The rule's alone where an instruction is put in: TVM fails at that with most others.
    """
    first = choose_by_rule(function, machine)
    if first is None:
        return []
    if _dot_of(function) is not None:
        return [first]

    def distance(other: TileChoice) -> tuple[float, str]:
        steps = [(other.lanes, first.lanes), (other.channels, first.channels), (other.positions, first.positions)]
        return sum(abs(log2(a / b)) for a, b in steps) + (other.padding != first.padding), str(other)

    return [first, *sorted(set(_space(function, machine)) - {first}, key=distance)]


def _space(function: Any, machine: str) -> Iterator[TileChoice]:
    extents = _extents(function)
    assert extents is not None, "a function with a rule's choice has extents"
    channels, positions, _ = extents
    whole = (channels,) if channels <= LANES[0] else ()
    pads: tuple[Literal["copied", "inside"], ...] = ("copied", "inside") if _pads(function) else ("copied",)
    for lanes in sorted({n for n in (*LANES, *whole) if channels % n == 0}):
        for together in (lanes * n for n in _divisors(channels // lanes, _VECTORS_MAX)):
            for along in _divisors(positions, _SPACE * POSITIONS_MAX):
                if along * together <= _SPACE * SUMS_MAX[machine]:
                    for padding in pads:
                        yield TileChoice(lanes=lanes, channels=together, positions=along, padding=padding)


def _extents(function: Any) -> tuple[int, int, int] | None:
    """Channels and positions in a row of the result, and what the innermost sum goes over; None without one."""
    schedule = _begin(function)
    blocks = _blocks(schedule)
    at = _reduction_at(schedule, blocks)
    if at is None:
        return None
    last = schedule.get_loops(blocks[-1])
    if at == len(blocks) - 1:
        last = [loop for loop, kind in zip(last, _kinds(schedule, blocks[at]), strict=True) if kind != _REDUCTION]
    sizes = [_extent(schedule, loop) for loop in last]
    return sizes[-1], sizes[-2] if len(sizes) > 1 else 1, _extent(schedule, schedule.get_loops(blocks[at])[-1])


def _pads(function: Any) -> bool:
    """True where something is copied ahead of the reduction, and changed by it."""
    schedule = _begin(function)
    blocks = _blocks(schedule)
    return not all(_only_copies(schedule, block) for block in blocks[: _reduction_at(schedule, blocks)])


def _begin(function: Any) -> Any:
    from tvm import s_tir

    return s_tir.Schedule(function.with_attr("global_symbol", "main"))


def _blocks(schedule: Any) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _reduction_at(schedule: Any, blocks: list[Any]) -> int | None:
    """The place of the only block that sums; None where there is not just one."""
    sums = [i for i, block in enumerate(blocks) if _REDUCTION in _kinds(schedule, block)]
    return sums[0] if len(sums) == 1 else None


def _only_copies(schedule: Any, block: Any) -> bool:
    return type(schedule.get(block).body.value).__name__ == "TensorLoad"


def _fuse(schedule: Any, blocks: list[Any], at: int, choice: TileChoice) -> None:
    dot = _dot(schedule, blocks[at])
    for block in blocks[:at]:
        if dot is None and (choice.padding == "inside" or _only_copies(schedule, block)):
            schedule.compute_inline(block)
        else:
            _vectorize(schedule, block)
    for block in blocks[at + 1 : -1]:
        schedule.compute_inline(block)
    last = blocks[-1] if at + 1 < len(blocks) else schedule.cache_write(blocks[at], 0, "global")
    _tile(schedule, blocks[at], last, choice)


def _tile(schedule: Any, reduction: Any, last: Any, choice: TileChoice) -> None:
    """Compute the reduction tile by tile inside the loops of the block that gives the result."""
    *outer, channel = schedule.get_loops(last)
    dot = _dot(schedule, reduction)
    tiles, inside_tile = schedule.split(channel, [None, choice.channels])
    if outer and _extent(schedule, outer[-1]) > 1:
        rows, position = schedule.split(outer.pop(), [None, choice.positions])
        schedule.reorder(*outer, rows, tiles, position, inside_tile)
    schedule.compute_at(reduction, tiles, preserve_unit_loops=True)
    kinds = _kinds(schedule, reduction)
    inside = schedule.get_loops(reduction)[-len(kinds) :]
    sum_loops = [loop for loop, kind in zip(inside, kinds, strict=True) if kind == _REDUCTION]
    other_loops = [loop for loop, kind in zip(inside, kinds, strict=True) if kind != _REDUCTION]
    group = [sum_loops.pop()] if dot else []
    schedule.reorder(*sum_loops, *other_loops, *group)
    vector = _in_registers(schedule, other_loops, choice.lanes, is_vector=dot is None)
    first = schedule.decompose_reduction(reduction, sum_loops[0])
    _in_registers(schedule, schedule.get_loops(first), choice.lanes)
    if dot:
        schedule.tensorize(vector, dot.register())
    for loop in sum_loops[:-1]:
        if _extent(schedule, loop) <= _UNROLLED_MAX:
            schedule.unroll(loop)
    _in_registers(schedule, schedule.get_loops(last), choice.lanes)


def _in_registers(schedule: Any, loops: list[Any], lanes: int, *, is_vector: bool = True) -> Any:
    """Vectors of `lanes` channels; what else a tile holds is written out. Returns the loop over a vector's lanes."""
    vectors, vector = schedule.split(loops[-1], [None, lanes])
    if is_vector:
        schedule.vectorize(vector)
    schedule.unroll(vectors)
    if len(loops) > 1 and _extent(schedule, loops[-2]) <= _SPACE * POSITIONS_MAX:
        schedule.unroll(loops[-2])
    return vector


def _dot_of(function: Any) -> Dot | None:
    schedule = _begin(function)
    blocks = _blocks(schedule)
    at = _reduction_at(schedule, blocks)
    return None if at is None else _dot(schedule, blocks[at])


def _dot(schedule: Any, block: Any) -> Dot | None:
    """The instruction that a block's sum was laid out for."""
    name = schedule.get(block).annotations.get(ANNOTATION)
    return None if name is None else DOTS[str(name)]


def _vectorize(schedule: Any, block: Any) -> None:
    """The last loop of a block that sums nothing."""
    loops = schedule.get_loops(block)
    if loops and _REDUCTION not in _kinds(schedule, block):
        size = _extent(schedule, loops[-1])
        schedule.vectorize(schedule.split(loops[-1], [None, next((n for n in LANES if size % n == 0), 1)])[1])


def _kinds(schedule: Any, block: Any) -> list[int]:
    return [int(variable.iter_type) for variable in schedule.get(block).iter_vars]


def _extent(schedule: Any, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _divisors(size: int, most: int) -> list[int]:
    return [d for d in range(1, min(size, most) + 1) if size % d == 0]


def _divisor(size: int, most: int) -> int:
    return _divisors(size, most)[-1]
