"""The work of a training process for tests: the family of a job's network says what becomes of it. No torch."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from edgeloop.core.campaign import Data, Task
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.errors import UserError
from edgeloop.ports import TrainedNetwork, TrainingJob, TrainingProgress
from edgeloop.training.key import training_key
from edgeloop.training.summary import write_trained

FOLDER = Path(__file__).parent
SLOW_S = 120


def prepare(threads: int) -> None:
    """There is nothing to prepare."""


def train(job: TrainingJob, networks: Path, report: TrainingProgress) -> TrainedNetwork:
    (networks / "starting").write_text(str(os.getpid()))
    (networks / "starting").replace(networks / "started")
    print("user code prints", flush=True)
    match job.network.family:
        case "crash":
            print("about to fall", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "endless":
            print("round and round", flush=True)
            while True:
                pass
        case "hungry":
            bytearray(1 << 31)
        case "wrong":
            raise UserError("net.py: no good", next_step="write it anew")
        case "broken":
            raise ValueError("a fault of ours")
        case "slow":
            for step in range(20 * SLOW_S):
                report("training", step / (20 * SLOW_S))
                time.sleep(0.05)
    folder = networks / training_key(job)
    folder.mkdir()
    with (networks / "trained").open("a") as file:
        print(job.network.family, file=file)
    report("training", 1.0)
    trained = TrainedNetwork(key=folder.name, folder=str(folder), seconds=0, epochs=1, validation={})
    write_trained(folder, trained, job, [])
    return trained


def describe(network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes:
    assert os.environ["OMP_WAIT_POLICY"]
    if network.family is None:
        raise UserError(f"{network.factory}: no such file")
    name, _, fell = network.family.partition(" ")
    if name == "fragile" and not Path(fell).exists():
        Path(fell).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return NetworkSizes(parameters=os.getpid(), macs=1, layers=(), activations=(), peak_activation_elements=1)
