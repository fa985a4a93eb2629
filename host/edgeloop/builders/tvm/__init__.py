"""Networks compiled by TVM into a shared library for the board's processor."""
