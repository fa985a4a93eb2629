"""Every kind of task goes through the whole loop: trained, lightened, built, gated, measured, judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import campaigns
import pytest

from edgeloop.core.campaign import Data
from edgeloop.data import load

pytestmark = pytest.mark.train

COMMON = (
    """
schema = 1
name = "tasks"
targets = ["here"]
[search]
widths = [1.41]
lightenings = ["w8a8"]
[training]
epochs = {epochs}
lightened_epochs = 2
teacher = "{teacher}"
[budget]
trials = 1
wall_minutes = 10
"""
    + campaigns.BRIEF_PLAN
)

REGRESSION = """
[reference]
family = "mlp"
[task]
kind = "regression"
[data]
provider = "factory"
factory = "data.py:splits"
[[limits]]
metric = "mae"
max_drop_from_reference = 0.5
"""
DIABETES = """
import numpy as np
from sklearn.datasets import load_diabetes

def splits():
    x, y = load_diabetes(return_X_y=True)
    x, y = (20 * x).astype("float32"), ((y - y.mean()) / y.std()).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    parts = {"train": order[:260], "validation": order[260:340], "test": order[340:]}
    return {name: {"x": x[part], "y": y[part]} for name, part in parts.items()}
"""

AUTOENCODER = """
[reference]
family = "autoencoder"
[task]
kind = "autoencoder"
[data]
provider = "digits"
[[limits]]
metric = "mse"
max_drop_from_reference = 0.2
"""

CUSTOM = """
[reference]
factory = "net.py:build"
weights = "m1.pt"
[task]
kind = "custom"
loss = "task.py:loss"
metrics = { right = "task.py:right", calibration = "task.py:calibration" }
agreement = "task.py:same"
distillation = "task.py:distil"
[data]
provider = "digits"
[[limits]]
metric = "right"
max_drop_from_reference = 0.5
[[limits]]
metric = "calibration"
max_value = 0.9
[[limits]]
metric = "agreement"
min_fraction = 0.7
"""
NET = """
from torch import nn

def build(width, depth):
    n = int(16 * width)
    return nn.Sequential(nn.Conv2d(1, n, 3, 2, 1), nn.BatchNorm2d(n), nn.ReLU(), nn.Flatten(), nn.Linear(16 * n, 10))
"""
TASK = """
import numpy as np
from torch.nn import functional as F

def loss(outputs, targets):
    (logits,), (labels,) = outputs.values(), targets.values()
    return F.cross_entropy(logits, labels, label_smoothing=0.1)

def distil(outputs, teacher):
    (ours,), (theirs,) = outputs.values(), teacher.values()
    return F.mse_loss(ours, theirs)

def right(outputs, targets):
    (logits,), (labels,) = outputs.values(), targets.values()
    return (logits.argmax(1) == labels).astype(float)

def calibration(outputs, targets):
    (logits,), (labels,) = outputs.values(), targets.values()
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    return float(abs(share.max(1).mean() - (logits.argmax(1) == labels).mean()))

calibration.lower_is_better = True

def same(outputs, other):
    (ours,), (theirs,) = outputs.values(), other.values()
    return ours.argmax(1) == theirs.argmax(1)
"""


def _run(folder: Path, text: str, *, teacher: str = "none", epochs: int = 4, **files: str) -> dict[str, Any]:
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    campaigns.write_local_board(folder)
    (folder / "campaign.toml").write_text(COMMON.format(teacher=teacher, epochs=epochs) + text)
    done = campaigns.run("run", folder / "campaign.toml", "--out", folder / "run", "--json", cwd=folder)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _write_trained_weights(path: Path) -> None:
    """What a user brings: a state dict of the factory's own module, trained elsewhere."""
    import torch

    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    torch.manual_seed(0)
    network = namespace["build"](1.0, 0)
    train = load(Data(provider="digits")).train
    (x,), (y,) = train.x.values(), train.y.values()
    images, labels = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), path)


@pytest.mark.full
def test_regression_is_judged_by_its_error_beside_m1s(tmp_path: Path) -> None:
    document = _run(tmp_path, REGRESSION, teacher="m1", data=DIABETES, epochs=20)
    best = document["trials"][document["finished"]["best"]]
    assert best["passed"]
    assert {m["metric"] for m in best["measurements"][0]["metrics"]} >= {"mae", "mse"}


@pytest.mark.full
def test_an_autoencoder_is_judged_by_what_it_gives_back(tmp_path: Path) -> None:
    document = _run(tmp_path, AUTOENCODER, teacher="m2")
    assert document["trials"][document["finished"]["best"]]["passed"]


def test_a_custom_task_brings_loss_metrics_agreement_and_distillation_and_m1_its_weights(tmp_path: Path) -> None:
    _write_trained_weights(tmp_path / "m1.pt")
    document = _run(tmp_path, CUSTOM, teacher="m2", net=NET, task=TASK)
    m1, best = document["trials"][0], document["trials"][document["finished"]["best"]]
    assert m1["trained"]["epochs"] == 0, "weights that are given are not trained over"
    assert best["passed"]
    assert {f["limit_id"]: f["outcome"] for f in best["measurements"][-1]["findings"]} == dict.fromkeys(
        ("L1", "L2", "L3"), "PASS"
    )
