"""Instructions that multiply four pairs of bytes and add them to a sum, lane by lane.

x86's VNNI and ARM's SDOT are one instruction. Older ARM cores take three: two products of eight pairs, the second added
to the first in 16 bits, where two fit if no weight is -128, and their neighbours added to four sums of 32 bits. TVM has
such functions too, but calls VNNI's with a signature that its own LLVM (22) no longer has, and takes six for the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUP = 4
"""Pairs of bytes behind one sum."""
ANNOTATION = "edgeloop.dot"
"""The annotation of a sum that is laid out for one: its name."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One instruction: sum[lane] += activation[0:4] . weights[lane, 0:4]."""

    name: str
    intrinsic: str | None
    """LLVM's name, of a function of sums, activations and weights; None: NEON's three."""
    lanes: int
    activations: str
    """int8 | uint8; weights are int8."""

    def register(self) -> str:
        """TVM's handle to tensorize with, made at the first call."""
        from tvm.s_tir import TensorIntrin

        handle = f"edgeloop.{self.name}"
        if TensorIntrin.get(handle, allow_missing=True) is None:
            TensorIntrin.register(handle, *_description(self))
        return handle


VNNI = Dot("vnni", "llvm.x86.avx512.vpdpbusd.512", 16, "uint8")
SDOT = Dot("sdot", "llvm.aarch64.neon.sdot.v4i32.v16i8", 4, "int8")
NEON = Dot("neon", None, 4, "int8")
DOTS = {dot.name: dot for dot in (VNNI, SDOT, NEON)}


def _description(dot: Dot) -> tuple[Any, Any]:
    """Its plain loops, and its calls."""
    return _loops(dot), _neon(dot) if dot.intrinsic is None else _one_call(dot)


def _loops(dot: Dot) -> Any:
    from tvm.script import tirx as T  # noqa: N812 -- what TVM's parser of Python knows it by

    lanes, dtype = dot.lanes, dot.activations

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def loops(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), dtype=dtype, offset_factor=1)  # noqa: N806
        B = T.match_buffer(b, (lanes, 4), dtype="int8", offset_factor=1)  # noqa: N806
        C = T.match_buffer(c, (lanes,), dtype="int32", offset_factor=1)  # noqa: N806
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], dtype="int32") * T.cast(B[vi, vk], dtype="int32")

    return loops


def _one_call(dot: Dot) -> Any:
    from tvm.script import tirx as T  # noqa: N812

    lanes, dtype, intrinsic = dot.lanes, dot.activations, dot.intrinsic
    four, sums, all_bytes = f"{dtype}x{GROUP}", f"int32x{lanes}", f"int8x{GROUP * lanes}"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def call(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), dtype=dtype, offset_factor=1)  # noqa: N806
        B = T.match_buffer(b, (lanes, 4), dtype="int8", offset_factor=1)  # noqa: N806
        C = T.match_buffer(c, (lanes,), dtype="int32", offset_factor=1)  # noqa: N806
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            activations = T.broadcast(T.reinterpret(A.vload([0], four), dtype="int32"), lanes)
            C[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(intrinsic),
                C.vload([0], dtype=sums),
                T.reinterpret(activations, dtype=all_bytes),
                B.vload([0, 0], dtype=all_bytes),
                dtype=sums,
            )

    return call


def _neon(dot: Dot) -> Any:
    from tvm.script import tirx as T  # noqa: N812

    lanes, long, pairs = dot.lanes, "llvm.aarch64.neon.smull.v8i16", "llvm.aarch64.neon.saddlp.v4i32.v8i16"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def call(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), dtype="int8", offset_factor=1)  # noqa: N806
        B = T.match_buffer(b, (lanes, 4), dtype="int8", offset_factor=1)  # noqa: N806
        C = T.match_buffer(c, (lanes,), dtype="int32", offset_factor=1)  # noqa: N806
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            weights = B.vload([0, 0], "int8x16")
            first = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(long),
                T.Shuffle([weights], [0, 1, 4, 5, 8, 9, 12, 13]),
                T.reinterpret(T.broadcast(T.reinterpret(A.vload([0], "int8x2"), dtype="int16"), 4), dtype="int8x8"),
                dtype="int16x8",
            )
            second = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(long),
                T.Shuffle([weights], [2, 3, 6, 7, 10, 11, 14, 15]),
                T.reinterpret(T.broadcast(T.reinterpret(A.vload([2], "int8x2"), dtype="int16"), 4), dtype="int8x8"),
                dtype="int16x8",
            )
            C[T.ramp(T.int32(0), 1, lanes)] = C.vload([0], dtype="int32x4") + T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(pairs), first + second, dtype="int32x4"
            )

    return call
