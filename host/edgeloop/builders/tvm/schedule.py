"""Default schedules for one core: what TVM would leave as plain loops is tiled, vectorized and kept in registers.

A lowered network is a handful of functions with channels last: maybe a copy that pads, one reduction (a convolution, a
product, a mean), and what is fused behind it. The reduction is computed for a tile of positions x channels at a time,
where the result's last steps are: the tile's sums fit into registers, its channels are the lanes of a vector. On
networks of these sizes that is near LiteRT's hand-written kernels (docs/results/engines.md); TVM's own default takes 3
to 42 times as long.
"""

from __future__ import annotations

from typing import Any

LANES = (16, 8, 4, 2)
"""Lengths of vectors, the longest that divides the channels: 16 is one of AVX-512, and four of a Cortex-A."""
CHANNELS_MAX = 32
POSITIONS_MAX = 8
"""Of a tile. What a tile sums is kept in registers, so that there are not more sums than those hold."""
SUMS_MAX = {"aarch64": 96, "x86_64": 256}
_UNROLLED_MAX = 3
_REDUCTION = 2  # tirx.IterVar.CommReduce


def scheduled(module: Any, machine: str) -> Any:
    """The module with a schedule for each of its lowered functions. What the rule does not fit stays as it was."""
    from tvm import s_tir, tirx

    for name, function in list(module.functions.items()):
        if not isinstance(function, tirx.PrimFunc):
            continue
        schedule = s_tir.Schedule(function.with_attr("global_symbol", "main"))
        try:
            _schedule(schedule, SUMS_MAX[machine])
        except s_tir.ScheduleError as error:
            print(f"left as plain loops: {name.name_hint}: {str(error).strip().splitlines()[-1]}")  # noqa: T201 -- the child's log
            continue
        module.update_func(name, schedule.mod["main"].without_attr("global_symbol"))
    return module


def _schedule(schedule: Any, sums_max: int) -> None:
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    reductions = [i for i, block in enumerate(blocks) if _kinds(schedule, block).count(_REDUCTION)]
    if len(reductions) != 1:
        for block in blocks:
            _vectorize(schedule, block)
        return
    at = reductions[0]
    for block in blocks[:at]:
        if type(schedule.get(block).body.value).__name__ == "BufferLoad":  # a copy that changes nothing
            schedule.compute_inline(block)
        else:
            _vectorize(schedule, block)
    for block in blocks[at + 1 : -1]:
        schedule.compute_inline(block)
    last = blocks[-1] if at + 1 < len(blocks) else schedule.cache_write(blocks[at], 0, "global")
    _tile(schedule, blocks[at], last, sums_max)


def _tile(schedule: Any, reduction: Any, last: Any, sums_max: int) -> None:
    """Compute the reduction tile by tile inside the loops of the block that gives the result."""
    *outer, channel = schedule.get_loops(last)
    lanes = _lanes(_extent(schedule, channel))
    together = lanes * _divisor(_extent(schedule, channel) // lanes, CHANNELS_MAX // lanes)
    tiles, inside_tile = schedule.split(channel, [None, together])
    positions = 1
    if outer and _extent(schedule, outer[-1]) > 1:
        along = outer.pop()
        positions = _divisor(_extent(schedule, along), max(1, min(POSITIONS_MAX, sums_max // together)))
        rows, position = schedule.split(along, [None, positions])
        schedule.reorder(*outer, rows, tiles, position, inside_tile)
    schedule.compute_at(reduction, tiles, preserve_unit_loops=True)
    kinds = _kinds(schedule, reduction)
    inside = schedule.get_loops(reduction)[-len(kinds) :]
    summed = [loop for loop, kind in zip(inside, kinds, strict=True) if kind == _REDUCTION]
    kept = [loop for loop, kind in zip(inside, kinds, strict=True) if kind != _REDUCTION]
    schedule.reorder(*summed, *kept)
    _in_registers(schedule, kept, lanes)
    first = schedule.decompose_reduction(reduction, summed[0])
    _in_registers(schedule, schedule.get_loops(first), lanes)
    for loop in summed[:-1]:
        if _extent(schedule, loop) <= _UNROLLED_MAX:
            schedule.unroll(loop)
    _in_registers(schedule, schedule.get_loops(last), lanes)


def _in_registers(schedule: Any, loops: list[Any], lanes: int) -> None:
    """Vectors of `lanes` channels; what else a tile holds is written out."""
    vectors, vector = schedule.split(loops[-1], [None, lanes])
    schedule.vectorize(vector)
    schedule.unroll(vectors)
    if len(loops) > 1 and _extent(schedule, loops[-2]) <= POSITIONS_MAX:
        schedule.unroll(loops[-2])


def _vectorize(schedule: Any, block: Any) -> None:
    """The last loop of a block that sums nothing."""
    loops = schedule.get_loops(block)
    if loops and not _kinds(schedule, block).count(_REDUCTION):
        schedule.vectorize(schedule.split(loops[-1], [None, _lanes(_extent(schedule, loops[-1]))])[1])


def _kinds(schedule: Any, block: Any) -> list[int]:
    return [int(variable.iter_type) for variable in schedule.get(block).iter_vars]


def _extent(schedule: Any, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _lanes(channels: int) -> int:
    return next((lanes for lanes in LANES if channels % lanes == 0), 1)


def _divisor(size: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if size % d == 0)
