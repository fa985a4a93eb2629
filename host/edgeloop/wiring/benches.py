"""The bench of a board. Inventory and files are read without paramiko; a bench brings it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.core.board import Board

if TYPE_CHECKING:
    from edgeloop.board.bench import BoardBench


def open_board(board: Board) -> BoardBench:
    """Return the bench of one board, over SSH or on this machine. Nothing is sent before its first call."""
    from edgeloop.board.bench import open_bench

    return open_bench(board)
