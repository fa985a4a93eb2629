"""Bad input through the real command: one line for each fault, the right exit code, no traceback, nothing written."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import campaigns
import numpy as np
import pytest

MODELS = Path(__file__).parents[1] / "data"
TINY = MODELS / "tiny_float.tflite"


def refused(*words: str | Path, cwd: Path, code: int = 2) -> list[str]:
    """Lines of stderr of a command that must be refused, after what every refusal promises."""
    before = sorted(cwd.rglob("*"))
    done = campaigns.run(*words, cwd=cwd, expect=code, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(cwd.rglob("*")) == before
    return [line for line in done.stderr.splitlines() if line.startswith("edgeloop: ")]


def test_all_faults_of_a_campaign_come_at_once_with_path_and_next_step(tmp_path: Path) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="local")
    text = campaign.read_text()
    text = text.replace('family = "ds_cnn"', 'family = "ds_cnn"\nwidht = 2\nweights = "none.pt"')
    text = text.replace('["w8a8", "w4a8"]', '["w8a8", "w3a3"]').replace("epochs = 3\n", 'epochs = "three"\n')
    text = text.replace("time_s_min = 0.05", "time_min = 0.05")
    campaign.write_text(text)
    lines = refused("run", campaign, cwd=tmp_path)
    assert len(lines) == 5
    for path, what in (
        ("reference.widht", "did you mean 'width'?"),
        ("reference.weights", "no such file"),
        ("search.lightenings.1", "the ladder is fp32, fp16, w8a16, w8a8, w4a8"),
        ("training.epochs", "integer"),
        ("plan.time_min", "known keys are"),
    ):
        assert sum(f"campaign.toml: {path}: " in line and what in line for line in lines) == 1, (path, lines)


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ('{ metric = "latency", max_ms = 3 }', "names its statistic"),
        ('{ metric = "top1", max_ms = 3 }', "max_ms does not go with metric 'top1'"),
        ('{ metric = "top1", min_fraction = 0.9999 }', "can't be passed with 350 samples"),
        ('{ metric = "topp1", min_fraction = 0.9 }', "is not a metric of this task; did you mean 'top1'?"),
        (
            '{metric = "latency", statistic = "p50", max_ms = 9}, {metric = "latency", statistic = "p90", max_ms = 3}',
            "a lower percentile can't be the slower one",
        ),
    ],
)
def test_limits_that_cannot_be_decided_or_contradict_each_other_are_refused(
    tmp_path: Path, limit: str, what: str
) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="local")
    text = campaign.read_text()
    start, end = text.index("limits = ["), text.index("\n]\n") + 3
    campaign.write_text(f"{text[:start]}limits = [ {limit} ]\n{text[end:]}")
    lines = refused("run", campaign, "--out", tmp_path / "run", cwd=tmp_path)
    assert len(lines) == 1
    assert what in lines[0]


def test_an_unknown_family_is_told_with_those_there_are(tmp_path: Path) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="local")
    campaign.write_text(campaign.read_text().replace('family = "ds_cnn"', 'family = "resnet50"'))
    (line,) = refused("run", campaign, "--out", tmp_path / "run", cwd=tmp_path)
    assert "reference.family: unknown family 'resnet50'; known are ds_cnn, resnet" in line


def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "campaign.toml").write_text("schema = 1\nname = \n")
    (line,) = refused("run", tmp_path / "campaign.toml", cwd=tmp_path)
    assert "not TOML" in line
    assert "line 2" in line


def test_a_missing_campaign_and_an_unknown_target_name_the_next_step(tmp_path: Path) -> None:
    (line,) = refused("run", "nothing.toml", cwd=tmp_path)
    assert "edgeloop init" in line
    (line,) = refused("measure", TINY, "--target", "pi99", cwd=tmp_path)
    assert "edgeloop targets add" in line


def test_a_target_that_does_not_answer_is_told_in_a_line_with_exit_code_3(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (tmp_path / "deaf.toml").write_text(
        'schema = 1\nname = "deaf"\nextends = "raspberry-pi-4"\n'
        f'[ssh]\nhost = "127.0.0.1"\nport = {port}\nuser = "pi"\nhost_key = "SHA256:{"A" * 43}"\n'
    )
    (line,) = refused("measure", TINY, "--target", "deaf", cwd=tmp_path, code=3)
    assert f"127.0.0.1:{port}" in line


@pytest.mark.parametrize("kind", ["cut short", "empty", "text", "missing"])
def test_a_model_that_is_none_is_refused_in_a_line(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "model.tflite"
    content = {"cut short": TINY.read_bytes()[:1500], "empty": b"", "text": b"hello, board\n" * 50}
    if kind in content:
        model.write_bytes(content[kind])
    (line,) = refused("measure", model, "--target", "local", cwd=tmp_path)
    assert "model.tflite" in line


def test_data_that_do_not_fit_are_refused_before_anything_is_pushed(tmp_path: Path) -> None:
    wrong, nan, text = tmp_path / "wrong.npz", tmp_path / "nan.npz", tmp_path / "text.npz"
    np.savez(wrong, x=np.zeros((4, 3), np.float32))
    np.savez(nan, x=np.full((4, 8, 8, 1), np.nan, np.float32))
    text.write_text("no arrays here")
    for path in (wrong, nan, text):
        (line,) = refused("measure", TINY, "--target", "local", "--data", path, cwd=tmp_path)
        assert path.name in line


def test_words_of_the_command_line_are_checked_all_at_once(tmp_path: Path) -> None:
    lines = refused(
        "measure", TINY, "--target", "local", "--engine", "onnx", "--profile", "fast", "--timing", "all", cwd=tmp_path
    )
    assert len(lines) == 3
    (line,) = refused("measure", TINY, "--target", "local", "--limit", "latency.p90_ms=fast", cwd=tmp_path)
    assert "'fast' is not a number" in line
    (line,) = refused("measure", TINY, "--target", "local", "--limit", "top1=0.9", cwd=tmp_path)
    assert "--data" in line


def test_faults_of_a_declared_environment_come_all_at_once_with_their_keys(tmp_path: Path) -> None:
    declared = tmp_path / "declared.toml"
    declared.write_text('throttling = "sook"\nunder_voltage = true\nsoak_max = 5\n')
    command = ("measure", TINY, "--target", "local", "--environment", declared)
    lines = refused(*command, "--engine", "onnx", cwd=tmp_path)
    assert len(lines) == 4
    assert any(line.endswith("declared.toml: soak_max: unknown key; did you mean 'soak_max_s'?") for line in lines)
    assert any("declared.toml: throttling: " in line and "'forbid', 'allow' or 'soak'" in line for line in lines)
    declared.unlink()
    (line,) = refused(*command, cwd=tmp_path)
    assert "declared.toml: no such file" in line


def test_faults_of_model_and_data_come_together(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(TINY.read_bytes()[:1500])
    lines = refused("measure", tmp_path / "model.tflite", "--target", "local", "--data", "none.npz", cwd=tmp_path)
    assert len(lines) == 2


def test_resuming_what_never_began_and_reporting_what_is_no_run_are_refused(tmp_path: Path) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="local")
    (line,) = refused("run", campaign, "--resume", "--out", tmp_path / "run", cwd=tmp_path)
    assert "no run to resume" in line
    (line,) = refused("report", tmp_path, cwd=tmp_path)
    assert "ledger.jsonl" in line


def test_a_users_factory_that_fails_is_told_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build(width, depth):\n    raise RuntimeError('no such layer')\n")
    campaign = campaigns.write_campaign(tmp_path, target="local")
    campaign.write_text(campaign.read_text().replace('family = "ds_cnn"', 'factory = "net.py:build"'))
    done = campaigns.run("run", campaign, "--out", tmp_path / "run", cwd=tmp_path, expect=2)
    assert "Traceback" not in done.stderr
    assert "net.py:build, line 2: RuntimeError: no such layer" in done.stderr


def test_a_dry_run_of_two_engines_tells_of_each_what_it_can_build(tmp_path: Path) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="local")
    campaign.write_text(campaign.read_text().replace("[search]\n", '[search]\nengines = ["litert", "tvm"]\n'))
    told = campaigns.run("run", campaign, "--dry-run", cwd=tmp_path).stdout
    assert "w8a8 on tvm: size, latency and accuracy real" in told
    assert "for tvm only fp32, w8a8 is built" in told


def test_a_dry_run_tells_samples_minutes_and_undecidable_limits_without_touching_a_board(tmp_path: Path) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="local")
    document = json.loads(campaigns.run("run", campaign, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert document["undecidable"] == []
    assert document["plans"][0]["minutes"] > 0
    campaign.write_text(
        campaign.read_text().replace('metric = "top1", max_drop_from_reference = 0.5', 'metric = "f1", min_value = 1')
    )
    done = campaigns.run("run", campaign, "--dry-run", cwd=tmp_path, expect=2)
    assert "can't be decided" in done.stdout
