"""M1 as a ready file, through the real `run`: a Keras network, trained by TensorFlow, is baseline and teacher."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import campaigns
import keras_models
import numpy as np
import pytest

from edgeloop.config.campaign_file import load_campaign
from edgeloop.core.campaign import Data
from edgeloop.core.model_format import ModelFormat
from edgeloop.data.load import load
from edgeloop.errors import EdgeloopError, UserError
from edgeloop.host_runtime.shapes import InputShapes
from edgeloop.host_runtime.tflite import count_tflite, predict_tflite, read_tflite
from edgeloop.ready_models.conversion import ConversionOptions, convert
from edgeloop.ready_models.reference_file import check_reference_file
from edgeloop.ready_models.reference_outputs import PROBABILITIES
from edgeloop.testing.sshd import LoopbackSshd

pytestmark = [
    pytest.mark.train,
    pytest.mark.tensorflow,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs edgeloop[tensorflow]"),
]
SAMPLES = InputShapes(samples={"x": (8, 8, 1)})
QUICK = ("--profile", "quick", "--sessions", "2", "--time-s-min", "0.05")
BIG = """
from torch import nn

def build(width, depth):
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `keras_models` makes, in a process of its own: TensorFlow and torch do not share one."""
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run([sys.executable, keras_models.__file__, str(folder)], check=True, timeout=300, capture_output=True)
    return folder


def campaign(folder: Path, reference: str, *, target: str = "local", **changed: str) -> Path:
    path = campaigns.write_campaign(folder, target=target)
    text = path.read_text().replace('family = "ds_cnn"', reference).replace('["w8a8", "w4a8"]', '["w8a8"]')
    text = text.replace("limits = [", 'limits = [\n  { metric = "agreement", min_fraction = 0.3 },')
    for old, new in changed.items():
        text = text.replace(f"[{old}]\n", f"[{old}]\n{new}\n")
    path.write_text(text)
    return path


def of_m1(folder: Path, kind: str) -> dict[str, Any]:
    return next(event for event in campaigns.events(folder) if event["kind"] == kind and event["trial"] == 0)


@pytest.mark.sshd
def test_a_keras_file_is_baseline_and_teacher_of_a_campaign_over_ssh(
    models: Path, sshd_session: LoopbackSshd, tmp_path: Path
) -> None:
    shutil.copy(models / "m1.keras", tmp_path)
    sshd_session.write_board(tmp_path)
    path = campaign(
        tmp_path,
        'file = "m1.keras"\nfamily = "ds_cnn"\nlightening = "w8a8"',
        target="loopback",
        training='teacher = "m1"',
    )
    done = campaigns.run("run", path, "--out", tmp_path / "run", "--json", cwd=tmp_path)
    document, run = json.loads(done.stdout), tmp_path / "run"
    m1, m3 = document["trials"][:2]
    assert (m1["name"], m1["trained"]["epochs"]) == ("m1.keras w8a8", 0)
    assert PROBABILITIES in done.stderr
    built = of_m1(run, "built")["artifact"]
    assert built["inputs"][0]["dtype"] == "int8"
    assert built["tools"]["tensorflow"] == document["versions"]["tensorflow"]
    assert Path(built["path"]).stat().st_size == built["deployed_bytes"] == m1["deployed_bytes"]
    top1 = m1["measurements"][0]["accuracy"]["value"]
    assert abs(top1 - m1["trained"]["validation"]["top1"]) < 0.03, "the int8 form on the board beside the float one"
    findings = {f["text"].split()[0]: f["outcome"] for f in m3["measurements"][0]["findings"]}
    assert findings == dict.fromkeys(("agreement", "top1", "latency", "deployed_size"), "PASS")
    phases = m3["trained"]["phases"]
    assert [phase["what"] for phase in phases] == [
        "M2 trained on labels",
        "M1 as it is, run on the data",
        "M3 as w8a8, taught by M1",
    ]
    assert phases[2]["teacher"] == phases[1]["key"]
    sizes, form = count_tflite(read_tflite(run / "best" / "model.tflite"))
    assert form == "w8a8"
    assert (sizes.parameters, sizes.macs) == (m3["parameters"], m3["macs"]), "counted on the file as on the graph"

    before = campaigns.events(run)
    campaigns.run("run", path, "--out", run, "--resume", cwd=tmp_path)
    assert campaigns.events(run) == before
    shutil.copy(models / "two.keras", tmp_path / "m1.keras")
    done = campaigns.run("run", path, "--out", run, "--resume", cwd=tmp_path, expect=2)
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_a_tflite_is_measured_as_it_is_beside_networks_of_a_list(models: Path, tmp_path: Path) -> None:
    x = load(Data(provider="digits")).calibration.x
    asked = ConversionOptions("w8a8", SAMPLES, x)
    file = shutil.copy(convert(models / "m1.keras", asked, tmp_path / "cache").path, tmp_path / "m1.tflite")
    (tmp_path / "big.py").write_text(BIG)
    path = campaign(
        tmp_path, 'file = "m1.tflite"\nlarger = ["big.py:build"]', training='teacher = "m1"\nschedule = "patent3"'
    )
    path.write_text(path.read_text().replace("widths = [1.41]\n", ""))
    done = campaigns.run("run", path, "--out", tmp_path / "run", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["trials"][0]["name"] == "m1.tflite w8a8", "told by what it is stored in"
    kept = Path(of_m1(tmp_path / "run", "built")["artifact"]["path"])
    assert kept.read_bytes() == file.read_bytes()
    assert document["trials"][1]["name"] == "big.py:build w8a8"


@pytest.mark.full
def test_every_form_is_made_and_agrees_with_the_float_one(models: Path, tmp_path: Path) -> None:
    data = load(Data(provider="digits"))
    labels, outputs, sizes = data.validation.y["y"], {}, {}
    for form in ModelFormat.KERAS.row.forms:
        asked = ConversionOptions(form, SAMPLES, data.calibration.x)
        artifact = convert(models / "m1.keras", asked, tmp_path)
        outputs[form] = predict_tflite(artifact, {artifact.inputs[0].name: data.validation.x["x"]})["output_0"]
        sizes[form] = artifact.deployed_bytes
        assert count_tflite(artifact)[1] == form
    assert np.mean(outputs["fp32"].argmax(1) == labels) > 0.7
    for form in ModelFormat.KERAS.row.forms:
        assert np.mean(outputs[form].argmax(1) == outputs["fp32"].argmax(1)) > 0.97, form
    assert max(sizes["dynamic"], sizes["w8a8"], sizes["w8a16"]) < sizes["fp16"] < sizes["fp32"]


@pytest.mark.full
def test_the_three_formats_of_one_network_are_one_file_and_converted_once(models: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    made = [convert(models / name, ConversionOptions(), tmp_path) for name in ("m1.keras", "m1.h5", "m1_saved")]
    for artifact in made:
        first, again = (predict_tflite(a, {a.inputs[0].name: x})["output_0"] for a in (made[0], artifact))
        np.testing.assert_allclose(again, first, atol=1e-6)
        assert artifact.inputs[0].shape == (1, 8, 8, 1)
    stamp = Path(made[0].path).stat().st_mtime_ns
    assert Path(convert(models / "m1.keras", ConversionOptions(), tmp_path).path).stat().st_mtime_ns == stamp
    Path(made[0].path).write_bytes(b"damaged")
    assert read_tflite(Path(convert(models / "m1.keras", ConversionOptions(), tmp_path).path)).sha256 == made[0].sha256


@pytest.mark.full
def test_measure_takes_keras_files_and_says_that_it_converted(models: Path, tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    test = load(Data(provider="digits")).test
    np.savez(tmp_path / "test.npz", x=test.x["x"], y=test.y["y"])
    words = ("--target", "here", "--data", "test.npz", *QUICK)
    done = campaigns.run("measure", models / "m1_saved", *words, "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["model"]["path"] == str(models / "m1_saved")
    assert set(document["model"]["converted_by"]) == {"tensorflow", "keras"}
    assert document["accuracy"]["value"] > 0.7
    shown = campaigns.run(
        "measure", models / "open.keras", "--shape", "image=1,9,9,1", *words[:2], *QUICK, cwd=tmp_path
    )
    assert "converted: to float .tflite by tensorflow" in shown.stdout
    refused = campaigns.run("measure", models / "open.keras", *words[:2], *QUICK, cwd=tmp_path, expect=2)
    assert "--shape image=1,32,32,1" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lambda.keras", "Lambda layer"),
        ("many", "has the signatures f, g, and none is serving_default"),
        ("odd", "operators that TFLite does not have: Erfinv"),
        ("broken.keras", "Keras can't load it"),
    ],
)
def test_what_can_t_be_converted_is_one_line(models: Path, tmp_path: Path, name: str, said: str) -> None:
    (models / "broken.keras").write_bytes(b"no archive")
    with pytest.raises(EdgeloopError, match=said) as caught:
        convert(models / name, ConversionOptions(), tmp_path)
    assert caught.value.exit_code == 2
    (line,) = caught.value.lines()
    assert "\n" not in line


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ('file = "two.keras"', "its inputs are left, right, those of the data x"),
        ('file = "open.keras"', "output y has the shape (1, 4), the data ask for 10 classes"),
        (
            'file = "m1.keras"\nlightening = "w4a8"',
            "makes no w4a8 of a file; it makes fp32, fp16, dynamic, w8a16, w8a8",
        ),
    ],
)
def test_a_file_that_does_not_go_with_the_data_is_refused_before_anything_is_trained(
    models: Path, tmp_path: Path, reference: str, said: str
) -> None:
    for file in ("two.keras", "open.keras", "m1.keras"):
        shutil.copy(models / file, tmp_path)
    loaded = load_campaign(campaign(tmp_path, f'{reference}\nfamily = "ds_cnn"'))
    with pytest.raises(UserError) as caught:
        check_reference_file(loaded, load(loaded.data))
    assert said in caught.value.lines()[0]
