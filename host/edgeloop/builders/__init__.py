"""Trained network -> artifact. Each toolchain runs in a child process; only `edgeloop.builders.child` starts one."""
