"""A run with a strategy, a bench, a trainer and a builder of somebody else, and what Python callers are told."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import campaigns
import pytest

import edgeloop
from edgeloop.app.run_checks import check_toolchain
from edgeloop.config.campaign_file import load_campaign
from edgeloop.errors import ConfigError, MissingExtrasError, UserError
from edgeloop.ports import Builder, Trainer
from edgeloop.wiring.builders import BuilderSite, tflite_builder
from edgeloop.wiring.controller import training_pool
from edgeloop.wiring.third_parties import TrainerSite

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adapters-of-your-own.md"
STRATEGY, _RUN, BENCH = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
TINY = Path(__file__).parents[1] / "data" / "tiny_int8.tflite"


@pytest.mark.train
def test_a_run_takes_all_four_and_is_a_run_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    campaign = campaigns.write_campaign(tmp_path, target="here")
    campaign.write_text(
        campaign.read_text().replace('["w8a8", "w4a8"]', '["w8a8"]').replace("trials = 4", "trials = 1")
    )
    campaigns.write_local_board(tmp_path)
    relays: list[str] = []
    sites: list[str] = []

    def trainer(site: TrainerSite) -> Trainer:
        sites.append(f"trainer {site.folder.name}")
        return training_pool(site.campaign, site.folder)

    def builder(site: BuilderSite) -> Builder:
        sites.append(f"builder {site.store.name}")
        return tflite_builder(site)

    names: dict[str, Any] = {"switch_relay": lambda board, state: relays.append(f"{board} {state}")}
    exec(compile(STRATEGY + BENCH, str(PAGE), "exec"), names)
    result = edgeloop.run(
        "campaign.toml",
        out="out",
        strategy=names["make_strategy"],
        bench=names["RelayBench"],
        trainer=trainer,
        builders={"litert": builder},
    )
    assert result.exit_code == 0
    assert sites == ["trainer networks", "builder artifacts"]
    assert relays[:2] == ["here on", "here off"]
    assert relays.count("here on") == relays.count("here off") >= 3
    (asked,) = [event for event in campaigns.events(tmp_path / "out") if event["kind"] == "asked" and event["trial"]]
    assert "in the order of a patent search" in asked["why"]


# Python's words


def test_faults_of_a_request_are_in_pythons_words_with_the_arguments_paths() -> None:
    words = edgeloop.PlanWords(profile="nope", timing="end_to_end")
    with pytest.raises(ConfigError) as caught:
        edgeloop.measure(TINY, "local", plan=words, engine="onnx", shapes=["x"], extend=True)
    assert caught.value.lines() == [
        "engine: 'onnx' is unknown; it is one of litert, tflite-runtime, tvm, exec",
        "plan.profile: 'nope' is unknown; it is one of quick, standard, qualification",
        "plan.timing: end_to_end times your own pipeline; name it with plan.pipeline='FILE.py:Class'",
        "shapes: 'x' is no NAME=1,28,28,1; sizes are 1 and up",
        "extend: there is no limit that more sessions could decide; give limits",
    ]
    assert {fault.where for fault in caught.value.faults} == {
        "engine",
        "plan.profile",
        "plan.timing",
        "shapes",
        "extend",
    }
    with pytest.raises(ConfigError) as caught:
        edgeloop.measure(TINY, "local", plan=edgeloop.PlanWords("quick"), limits=["latency.p50_ms=9", "top1=0.9"])
    assert caught.value.lines()[-1] == ("plan.profile: a quick plan passes nothing; leave out limits, or use standard")
    assert "give data, as data='FILE.npz' with x and y" in caught.value.lines()[0]


def test_a_study_speaks_of_its_own_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    campaigns.write_campaign(tmp_path, target="local")
    with pytest.raises(UserError) as caught:
        edgeloop.Study("campaign.toml", out="out", resume=True)
    assert caught.value.next_step == "leave out resume, or name its out"


def test_extras_that_are_missing_are_named_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    path = campaigns.write_campaign(tmp_path, target="local")
    text = path.read_text().replace('lightenings = ["w8a8", "w4a8"]', 'lightenings = ["w8a8-p25"]\nstrategy = "optuna"')
    path.write_text(text)

    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(MissingExtrasError) as caught:
        check_toolchain(load_campaign(path))
    pruner = "needs the package torch-pruning, which is not installed; pip install 'edgeloop[train]'"
    packages = "torch, litert-torch, ai-edge-quantizer, ai-edge-litert"
    assert caught.value.lines() == [
        f"edgeloop run needs the packages {packages}, which are not installed; pip install 'edgeloop[train,tflite]'",
        f"a lightening that ends in -p {pruner}",
        "search.strategy = 'optuna' needs the package optuna, which is not installed; pip install 'edgeloop[search]'",
    ]


def test_a_measurement_that_is_interrupted_says_nothing_of_resuming(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    command = campaigns.command("measure", TINY, "--target", "here", "--time-s-min", "30")
    # Whoever runs these tests in the background of a shell has interrupts ignored, and so would the command.
    command = ["env", "--default-signal=INT", *map(str, command)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    jobs = tmp_path / "state" / "jobs"
    deadline_s = time.monotonic() + 300
    while not (jobs.exists() and list(jobs.iterdir())) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 3
    assert stderr.splitlines()[-1] == "edgeloop: interrupted"
