"""What the study trains: data sets, recipes, arms, and networks whose built files weigh what a budget allows."""

from __future__ import annotations

import bisect
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fit_bytes

from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec
from edgeloop.data import load, network_io
from edgeloop.models.build import build_network
from edgeloop.models.describe import describe
from edgeloop.search.size_model import Prediction

CHANNEL_MULTIPLE = 2
"""Half of a campaign's default: small files come within 2 % of a budget only in finer steps."""
VOWELS = Path(__file__).parent / "study_vowels.py"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to a deployed network. `size` says where its network comes from."""

    name: str
    size: str
    """m1; b8: built as this arm's rung it weighs what M1 weighs as w8a8, b32: as fp32; t8, t32: as fast as M1 so."""
    lightening: str
    teacher: str = "none"
    calibrated_only: bool = False


ARMS = (
    Arm("m1-float", "m1", "fp32"),
    Arm("m1-ptq", "m1", "w8a8", calibrated_only=True),
    Arm("m1-qat", "m1", "w8a8"),
    Arm("m1-qat-m2", "m1", "w8a8", "m2"),
    Arm("m3-none", "b8", "w4a8"),
    Arm("m3-m1", "b8", "w4a8", "m1"),
    Arm("m3-m1d", "b8", "w4a8", "m1-distilled"),
    Arm("m3-m2", "b8", "w4a8", "m2"),
    Arm("wide8", "b32", "w8a8"),
    Arm("narrow-float", "b8", "fp32"),
    Arm("slow8", "t32", "w8a8"),
    Arm("fast4", "t8", "w4a8"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A data set with its family, the widths of M1, and the recipe that every arm of it shares."""

    name: str
    data: Data
    family: str
    widths: tuple[float, ...]
    recipe: Training
    arms: tuple[Arm, ...] = ARMS


def recipe(epochs: int, lightened: int, batch: int) -> Training:
    return Training(epochs=epochs, lightened_epochs=lightened, batch=batch, device="cpu")


FASHION = Data(provider="fashion-mnist", path="/usr/share/datasets/fashion-mnist")
OF_M1_AND_M2 = ("m1-float", "m1-ptq", "m1-qat", "m1-qat-m2", "m3-none", "m3-m1", "m3-m2")
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("mnist5k", Data(provider="mnist5k"), "ds_cnn", (0.5, 1.0, 2.0), recipe(30, 10, 64)),
        Setting(
            "vowels",
            Data(provider="factory", factory=f"{VOWELS}:splits"),
            "conv1d",
            (0.5, 1.0, 2.0),
            recipe(60, 20, 16),
        ),
        Setting("fashion", FASHION, "ds_cnn", (1.0, 2.0, 4.0), recipe(10, 5, 128)),
        Setting(
            "fashion-long",
            FASHION,
            "ds_cnn",
            (1.0,),
            recipe(30, 15, 128),
            tuple(arm for arm in ARMS if arm.name in OF_M1_AND_M2),
        ),
    )
}


class Sizing:
    """Finds networks by the bytes of their built files; untrained networks weigh the same as trained ones."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._io: NetworkIO | None = None
        self._built: dict[tuple[float, str], int] = {}
        self._widths: list[float] = []
        self._sizes: dict[float, NetworkSizes] = {}

    @property
    def io(self) -> NetworkIO:
        if self._io is None:
            self._io = network_io(load(self._setting.data), Task())
        return self._io

    def spec(self, width: float, seed: int = 0) -> NetworkSpec:
        return NetworkSpec(family=self._setting.family, width=width, seed=seed)

    def sizes(self, width: float) -> NetworkSizes:
        if width not in self._sizes:
            self._sizes[width] = describe(self.spec(width), self.io, CHANNEL_MULTIPLE)
        return self._sizes[width]

    def file(self, width: float, rung: str) -> bytes:
        """The built file of an untrained network."""
        with tempfile.TemporaryDirectory() as folder:
            return fit_bytes.built_file(self.spec(width), self.io, Lightening.parse(rung), Path(folder))

    def bytes_of(self, width: float, rung: str) -> int:
        """Bytes of the built file."""
        key = (round(width, 6), rung)
        if key not in self._built:
            self._built[key] = len(self.file(width, rung))
        return self._built[key]

    def distinct(self) -> list[float]:
        """Widths in fine steps, one for each network that rounding to whole channels leaves."""
        if not self._widths:
            by_size = {parameters_of(self.spec(width), self.io): width for width in _fine()}
            self._widths = [by_size[size] for size in sorted(by_size)]
        return self._widths

    def nearest(self, budget: int, rung: str) -> float:
        """The width whose built file is nearest to a budget; the page leaves out what is not within the tolerance."""
        lightening = Lightening.parse(rung)
        widths = self.distinct()
        prediction = Prediction()
        real: dict[float, int] = {}
        while True:  # each built file corrects the prediction, until it points to one that was built
            at = bisect.bisect_left(
                widths, budget, key=lambda width: prediction.bytes_of(self.sizes(width), lightening)
            )
            near = widths[min(at, len(widths) - 1)]
            if near in real:
                break
            real[near] = self.bytes_of(near, rung)
            prediction.learn(self.sizes(near), lightening, real[near])
        real |= {width: self.bytes_of(width, rung) for width in widths[max(0, at - 1) : at + 2]}
        return min(real, key=lambda width: abs(real[width] - budget))


def _fine() -> Iterator[float]:
    width = 0.1
    while width < 12:
        yield round(width, 4)
        width *= 1.005


def parameters_of(spec: NetworkSpec, io: NetworkIO) -> int:
    return sum(p.numel() for p in build_network(spec, io, CHANNEL_MULTIPLE).parameters())
