"""Trains one network and prints how each rung's built file agrees with the network that was trained.

Usage: python tests/bench/bench_agreement.py [WIDTH]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.network import NetworkSpec
from edgeloop.data import load
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.training.pool import TrainingPool

RECIPE = Training(epochs=20, lightened_epochs=6)


def main() -> int:
    network = NetworkSpec(family="ds_cnn", width=float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
    data, task = Data(provider="mnist5k"), Task()
    sha256 = load(data).sha256

    with tempfile.TemporaryDirectory() as name:
        pool, builder = TrainingPool(Path(name) / "networks"), TfliteBuilder(Path(name) / "artifacts", Gate(task))

        def trained(rung: str, parent: str | None) -> TrainedNetwork:
            job = TrainingJob(
                network=network, lightening=rung, task=task, data=data, data_sha256=sha256, recipe=RECIPE, parent=parent
            )
            return pool.submit(job, lambda _what, _fraction: None).result()

        epochs = f"{RECIPE.epochs} float and {RECIPE.lightened_epochs} lightened epochs"
        print(f"ds_cnn width {network.width:g}, mnist5k, {epochs}")
        print(f"{'rung':<7}{'top1':>8}{'agreement':>11}{'steps mean':>12}{'steps max':>11}", end="")
        print(f"{'ranges':>9}{'bytes':>8}{'before strip':>14}")
        parent = None
        for rung in ("fp32", "fp16", "w8a16", "w8a8", "w4a8"):
            found = trained(rung, parent)
            parent = parent or found.folder
            artifact = builder.build(found, rung)
            parity, top1 = artifact.parity, (found.lightened or found.validation)["top1"]
            assert parity is not None
            steps = [f"{s:.3f}" if s is not None else "-" for s in (parity.steps_mean, parity.steps_max)]
            ranges = "/".join(map(str, artifact.ranges_matched)) if artifact.ranges_matched else "-"
            print(
                f"{rung:<7}{top1:>8.4f}{parity.agreement:>10.2%} {steps[0]:>11}{steps[1]:>11}{ranges:>9}"
                f"{artifact.deployed_bytes:>8}{artifact.bytes_before_strip or 0:>14}"
            )
        pool.close()
        builder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
