"""One loop that trains both kinds of network: float modules and fake-quantized graphs.

AdamW (Loshchilov, Hutter, arXiv:1711.05101) under a one-cycle learning rate (Smith, Topin, arXiv:1708.07120). The
last weights are kept, not those of the best epoch, unless the campaign sets a patience: the learning rate ends near
zero, so the last are as good, and choosing by validation data flatters the numbers that are judged on the same data.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeloop.core.dataset import DataSplit
from edgeloop.core.measurement import Arrays
from edgeloop.core.network import NetworkSignature
from edgeloop.errors import DataError, UserError
from edgeloop.training.loss_schedules import LossTerm
from edgeloop.training.objective import Tensors
from edgeloop.training.quantizers import LearnedStepQuantizer

_EVALUATION_BATCH = 256
_PROGRESS_EVERY_S = 0.5
_FLOPS_FOR_THREADS = 5e8
"""Forward operations of a batch under which one thread is at least as fast as several: they would mostly wait."""

ShareReport = Callable[[float], None]
"""Called with the share of the work that is over."""


@dataclass(frozen=True, slots=True)
class FitSamples:
    """A split as tensors, inputs in the order of the network's arguments."""

    inputs: tuple[torch.Tensor, ...]
    targets: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def on(self, device: torch.device) -> FitSamples:
        """The same samples on a device."""
        return FitSamples(tuple(x.to(device) for x in self.inputs), {k: v.to(device) for k, v in self.targets.items()})

    @classmethod
    def of(cls, split: DataSplit, signature: NetworkSignature, *, reconstruct: bool = False) -> FitSamples:
        """`reconstruct`: the inputs are the targets (autoencoder). Raises DataError where an input is missing."""
        missing = [name for name in signature.inputs if name not in split.x]
        if missing:
            raise DataError(f"x/{missing[0]}: not in the data, which have {', '.join(split.x)}")
        targets = {n: split.x[n] for n in signature.inputs} if reconstruct else split.y
        return cls(
            tuple(_tensor(split.x[name]) for name in signature.inputs),
            {name: _tensor(values, labels=True) for name, values in targets.items()},
        )


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training samples."""

    epoch: int
    loss: float
    """Mean over its batches, distillation included."""
    learning_rate: float
    seconds: float
    validation_loss: float | None = None
    """Only where it may stop the training."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """The length and the speed of a training."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    rate_key: str
    """The key of the campaign that sets the learning rate, for messages."""
    patience: int | None = None
    """Epochs without a better validation loss after which it ends."""
    counts_from: float = 0.0
    """Share of the steps: an epoch that begins earlier is neither counted by the patience nor kept as the best."""
    precision: torch.dtype = torch.float32
    """Of the forward pass and the loss; below float32 by autocast."""


def fit(
    network: nn.Module,
    outputs: Sequence[str],
    train: FitSamples,
    loss_term: LossTerm,
    settings: FitSettings,
    progress: ShareReport,
    *,
    at_share: Callable[[float], None] = lambda _: None,
    validation_loss: Callable[[], float] | None = None,
) -> list[Epoch]:
    """Train `network` in place and return its epochs. `outputs` names what it returns, in order.

    `at_share(share)` is called before each step with the share of steps that are over. Samples are shuffled by
    `settings.seed`; the samples that do not fill a batch wait for the next epoch's shuffle. With a patience,
    `validation_loss()` is asked after each epoch that began at `settings.counts_from` or later, and the weights of the
    best of these are kept.

    Raises UserError where the loss is not finite, and whatever the user's own functions raise, translated.
    """
    batch = min(settings.batch, len(train))
    steps = settings.epochs * (len(train) // batch)
    optimizer = torch.optim.AdamW(_groups(network), settings.learning_rate, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=max(2, steps))
    order = torch.Generator().manual_seed(settings.seed)
    device = train.inputs[0].device
    history: list[Epoch] = []
    best = _Best(network)
    step, last_report_s = 0, time.monotonic()
    for epoch in range(settings.epochs):
        began_s, total, rate = time.monotonic(), 0.0, float(schedule.get_last_lr()[0])
        shuffle = torch.randperm(len(train), generator=order).to(device)
        parts = torch.split(shuffle[: len(train) // batch * batch], batch)
        for index in parts:
            at_share(step / steps)
            with _autocast(device, settings.precision):
                results = by_name(network(*(x[index] for x in train.inputs)), outputs)
                loss = loss_term.loss(results, index, step / steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step + 1 < steps:
                schedule.step()
            step += 1
            total += float(loss.detach())
            if not math.isfinite(total):
                raise UserError(
                    f"training diverged: the loss is {float(loss.detach())} in epoch {epoch + 1}",
                    next_step=f"lower training.{settings.rate_key}, now {settings.learning_rate:g}, or check the data",
                )
            if time.monotonic() - last_report_s > _PROGRESS_EVERY_S:
                last_report_s = time.monotonic()
                progress(step / steps)
        counts = settings.patience is not None and epoch / settings.epochs >= settings.counts_from
        loss_now = validation_loss() if counts and validation_loss is not None else None
        history.append(Epoch(epoch + 1, total / len(parts), rate, time.monotonic() - began_s, loss_now))
        if loss_now is not None and best.age(loss_now) == settings.patience:
            break
    best.restore()
    progress(1.0)
    return history


class _Best:
    """The weights at the lowest validation loss, where one is judged by it."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._loss, self._age = math.inf, 0
        self._weights: Mapping[str, object] = {}

    def age(self, loss: float) -> int:
        """Note one more epoch's loss and return how many epochs ago the best was."""
        self._age += 1
        if loss < self._loss:
            self._loss, self._age = loss, 0
            self._weights = copy.deepcopy(self._network.state_dict())
        return self._age

    def restore(self) -> None:
        if self._weights:
            self._network.load_state_dict(self._weights)


def _groups(network: nn.Module) -> list[dict[str, object]]:
    """Weights decay; learned steps, which are logarithms, would decay towards a step of 1."""
    steps = {id(module.log_step) for module in network.modules() if isinstance(module, LearnedStepQuantizer)}
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [{"params": [p for p in parameters if id(p) not in steps]}]
    if steps:
        groups.append({"params": [p for p in parameters if id(p) in steps], "weight_decay": 0.0})
    return groups


def _autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[object]:
    if precision is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


@contextlib.contextmanager
def fitting_threads(network: nn.Module, samples: FitSamples, batch: int) -> Iterator[None]:
    """Compute with one thread where a batch is small work, else with all that torch was given.

    Decided by counting operations, never by timing, so that equal jobs are summed in equal orders.
    """
    available = torch.get_num_threads()
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(*(x[:1] for x in samples.inputs))
    network.train(training)
    if counter.get_total_flops() * min(batch, len(samples)) < _FLOPS_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(available)


def predict(network: nn.Module, outputs: Sequence[str], inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the network's outputs on all samples, by name, in batches and without gradients; its mode is kept."""
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in outputs}
    with torch.no_grad():
        for batch in zip(*(torch.split(x, _EVALUATION_BATCH) for x in inputs), strict=True):
            for name, value in by_name(network(*batch), outputs).items():
                parts[name].append(value)
    return {name: torch.cat(values) for name, values in parts.items()}


def arrays(tensors: Tensors) -> Arrays:
    """The same as numpy arrays."""
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in tensors.items()}


def by_name(result: torch.Tensor | Sequence[torch.Tensor], outputs: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return a network's result by the names of its outputs."""
    values = [result] if isinstance(result, torch.Tensor) else result
    return dict(zip(outputs, values, strict=True))


def _tensor(values: NDArray[np.generic], *, labels: bool = False) -> torch.Tensor:
    """Floats become float32. Integer targets become int64, which the losses ask for; integer inputs stay."""
    if values.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64 if labels else values.dtype))
