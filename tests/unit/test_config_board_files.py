"""Board files: where they are looked for, what they may say, how they join their model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.config import board_files
from edgeloop.config.board_files import parse_address, read_board, resolve, resolve_all
from edgeloop.config.board_models import detect_model, load_model, model_names, shipped_folder
from edgeloop.core.board import Delegate, PowerMeterSpec, Ssh
from edgeloop.errors import ConfigError, UserError

PI = 'schema = 1\nextends = "raspberry-pi-4"\ntags = ["pi4"]\n[ssh]\nhost = "pi4.lab"\nuser = "edge"\n'


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_files, "user_config_path", lambda _: tmp_path / "config")
    (tmp_path / "config" / "targets").mkdir(parents=True)


def write(path: Path, text: str = PI) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_shipped_model_reads_and_is_called_as_its_file() -> None:
    assert set(model_names()) >= {
        "local",
        "raspberry-pi-zero-2w",
        "raspberry-pi-3",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "beagleplay",
        "generic-aarch64-debian",
    }
    assert [load_model(name).name for name in model_names()] == model_names()


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no board model 'pi9'") as caught:
        load_model("pi9")
    assert "raspberry-pi-4" in (caught.value.next_step or "")


def test_the_reference_page_explains_every_key_that_a_file_may_have() -> None:
    page = (shipped_folder() / "README.md").read_text()
    kinds = [
        board_files.BoardFile,
        board_files.BoardModel,
        board_files.Ssh,
        board_files.Runtime,
        board_files.BoardEnvironment,
        PowerMeterSpec,
        Delegate,
    ]
    keys = {info.alias or name for kind in kinds for name, info in kind.model_fields.items()}
    forms = ("`{}`", "`[{}]`", "`[[{}]]`")
    assert [key for key in sorted(keys) if not any(form.format(key) in page for form in forms)] == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0\0", "raspberry-pi-zero-2w"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3"),
        ("Raspberry Pi 400 Rev 1.0", "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 5 Rev 1.0\0", "raspberry-pi-5"),
        ("BeagleBoard.org BeaglePlay", "beagleplay"),
        ("Somebody's own board", None),
        (None, None),
    ],
)
def test_a_model_is_told_by_its_device_tree(text: str | None, name: str | None) -> None:
    assert detect_model(text) == name


def test_the_campaigns_folder_comes_before_the_users(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/pi.toml", PI.replace("pi4.lab", "users"))
    assert resolve("pi", tmp_path / "run")[0].ssh == Ssh(host="users", user="edge")
    write(tmp_path / "run/pi.toml", PI.replace("pi4.lab", "beside"))
    assert resolve("pi", tmp_path / "run")[0].ssh == Ssh(host="beside", user="edge")
    write(tmp_path / "run/targets/pi.toml", PI.replace("pi4.lab", "folder"))
    assert resolve("pi", tmp_path / "run")[0].ssh == Ssh(host="folder", user="edge")


def test_personal_keys_override_the_models_and_the_rest_is_inherited(tmp_path: Path) -> None:
    text = PI.replace("raspberry-pi-4", "raspberry-pi-zero-2w") + "[runtime]\ncores = [2, 3]\n"
    board = read_board(write(tmp_path / "zero.toml", text))
    assert board.runtime.cores == (2, 3)
    assert board.runtime.cache_max_mib == load_model("raspberry-pi-zero-2w").runtime.cache_max_mib != 2048
    assert board.kind == "ssh"
    assert not board.shares_host


def test_a_users_own_model_can_be_extended(tmp_path: Path) -> None:
    write(
        tmp_path / "config/targets/my-soc.toml",
        'schema = 1\nname = "my-soc"\narchitectures = ["aarch64"]\nmemory_mib = 256\n',
    )
    board = read_board(write(tmp_path / "one.toml", PI.replace("raspberry-pi-4", "my-soc")))
    assert board.model.memory_mib == 256
    assert [item.name for item in board_files.inventory()] == ["local"]


def test_local_is_this_machine_with_this_interpreter() -> None:
    (board,) = resolve("local")
    assert (board.kind, board.runtime.python, board.runtime.source) == ("local", sys.executable, "system")
    assert board.shares_host


def test_a_file_may_say_more_about_this_machine(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/local.toml", 'schema = 1\nextends = "local"\n[runtime]\ncores = [1]\n')
    (board,) = resolve("local")
    assert (board.kind, board.runtime.python, board.runtime.cores) == ("local", sys.executable, (1,))


def test_an_address_is_a_board_of_the_generic_model() -> None:
    (board,) = resolve("pi@raspberrypi.local:2222")
    assert board.ssh == Ssh(host="raspberrypi.local", user="pi", port=2222)
    assert (board.name, board.model.name) == ("raspberrypi.local-2222", "generic-aarch64-debian")


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_one_clear_error(text: str) -> None:
    try:
        ssh = parse_address(text)
    except UserError as error:
        said = error.message
    else:
        said = repr(text)
        assert not ssh.host.startswith("-")
        assert not any(letter.isspace() for letter in ssh.host)
    assert repr(text) in said


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert parse_address("edge@[fe80::1]:22") == Ssh(host="fe80::1", user="edge", port=22)
    with pytest.raises(UserError):
        parse_address("edge@fe80::1")


def test_a_tag_names_all_boards_that_carry_it(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/b.toml")
    write(tmp_path / "config/targets/a.toml")
    write(tmp_path / "config/targets/other.toml", PI.replace('"pi4"]', '"zero"]'))
    assert [board.name for board in resolve("tag:pi4")] == ["a", "b"]
    with pytest.raises(UserError, match="no board has the tag 'x'") as caught:
        resolve("tag:x")
    assert caught.value.next_step == "tags are pi4, zero"


def test_a_tag_does_not_silently_leave_out_a_board_whose_file_is_broken(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/a.toml")
    broken = write(tmp_path / "config/targets/b.toml", PI + "colour = 1\n")
    with pytest.raises(ConfigError) as caught:
        resolve("tag:pi4")
    assert caught.value.lines()[0].startswith(f"{broken}: ssh.colour: unknown key")


def test_a_campaign_beside_is_not_taken_for_a_board(tmp_path: Path) -> None:
    write(tmp_path / "run/campaign.toml", 'schema = 1\nname = "x"\n')
    with pytest.raises(UserError, match="no board 'campaign'; found local"):
        resolve("campaign", tmp_path / "run")
    assert [item.name for item in board_files.inventory(tmp_path / "run")] == ["local"]


def test_an_unknown_target_says_what_was_found_and_what_to_try(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/pi4.toml")
    with pytest.raises(UserError, match="no board 'pi5'; found local, pi4") as caught:
        resolve("pi5")
    assert "edgeloop targets add pi5 --ssh" in (caught.value.next_step or "")


def test_a_model_is_not_a_board() -> None:
    with pytest.raises(UserError, match="is a board model") as caught:
        resolve("raspberry-pi-5")
    assert "--model raspberry-pi-5" in (caught.value.next_step or "")


@pytest.mark.parametrize("target", ["", "a/b", "../x", "-x", "tag", "a b"])
def test_a_name_never_becomes_a_path(target: str) -> None:
    with pytest.raises(UserError):
        resolve(target)


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pi.toml",
        'schema = 1\nname = "other"\nextends = "raspberry-pi-9"\nserail = "1"\n'
        '[runtime]\nsource = "exec"\ncache_max_mib = "big"\n'
        '[[delegate]]\nname = "coral"\n[power_switch]\ncommand = ["pdu"]\n[power_meter]\ncommand = ["m"]\n',
    )
    with pytest.raises(ConfigError) as caught:
        read_board(path)
    text = "\n".join(caught.value.lines())
    for part in (
        "delegate.0.library: missing",
        "delegate.0.ops_delegated_min_pct: missing",
        "power_switch: power switches are not supported by this version",
        "power_meter.accuracy_pct: missing",
        "runtime.source: exec is an engine, not a source of runtimes",
        "serail: unknown key; did you mean 'serial'?",
        "runtime.cache_max_mib",
        "extends: no board model 'raspberry-pi-9'",
        "name: is 'other' in a file called pi.toml",
        "ssh: missing",
    ):
        assert part in text
    assert len(caught.value.faults) == 10


def test_faults_of_all_targets_come_at_once(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/bad.toml", PI + "colour = 1\n")
    with pytest.raises(ConfigError) as caught:
        resolve_all(["bad", "nowhere", "tag:none", "local"])
    assert len(caught.value.faults) == 3


def test_a_board_that_two_targets_name_comes_once(tmp_path: Path) -> None:
    write(tmp_path / "config/targets/pi4.toml")
    assert [board.name for board in resolve_all(["pi4", "local", "pi4"])] == ["pi4", "local"]


def test_a_file_that_is_not_toml_is_named_even_beside_a_campaign(tmp_path: Path) -> None:
    path = write(tmp_path / "run/pi.toml", "extends = \n")
    with pytest.raises(ConfigError, match="not TOML") as caught:
        resolve("pi", tmp_path / "run")
    assert str(path) in str(caught.value)


METER = "[power_meter]\naccuracy_pct = 1.0\n"


def test_a_meters_command_that_is_a_path_is_taken_from_the_boards_folder(tmp_path: Path) -> None:
    board = read_board(write(tmp_path / "pi.toml", PI + METER + 'command = ["tools/meter", "stream"]\n'))
    assert board.power_meter is not None
    assert board.power_meter.command == (str(tmp_path / "tools/meter"), "stream")
    bare = read_board(write(tmp_path / "pi.toml", PI + METER + 'command = ["meter", "tools/x"]\n'))
    assert bare.power_meter is not None
    assert bare.power_meter.command == ("meter", "tools/x")


def test_a_models_sensor_is_its_boards_too_until_they_name_a_meter_of_their_own(tmp_path: Path) -> None:
    model = 'schema = 1\nname = "my-soc"\narchitectures = ["aarch64"]\n' + METER + 'hwmon = "ina3221/curr1"\n'
    write(tmp_path / "config/targets/my-soc.toml", model)
    text = PI.replace("raspberry-pi-4", "my-soc")
    assert read_board(write(tmp_path / "a.toml", text)).power_meter == PowerMeterSpec(
        hwmon="ina3221/curr1", accuracy_pct=1
    )
    own = read_board(write(tmp_path / "a.toml", text + METER + 'hwmon = "ina226@1-0040"\n')).power_meter
    assert own == PowerMeterSpec(hwmon="ina226@1-0040", accuracy_pct=1)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('command = ["m"]\nhwmon = "ina226"\naccuracy_pct = 1', "name one of command and hwmon"),
        ("accuracy_pct = 1", "name one of command and hwmon"),
        ('hwmon = "ina226"', "power_meter.accuracy_pct: missing"),
        ('hwmon = "ina226"\naccuracy_pct = -1', "power_meter.accuracy_pct"),
        ('hwmon = "../../etc"\naccuracy_pct = 1', "power_meter.hwmon"),
        ('command = [""]\naccuracy_pct = 1', "power_meter.command.0"),
        ('sensor = "ina226"\naccuracy_pct = 1', "power_meter.sensor: unknown key"),
    ],
)
def test_a_power_meter_is_one_source_with_its_accuracy(tmp_path: Path, keys: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_board(write(tmp_path / "pi.toml", f"{PI}[power_meter]\n{keys}\n"))
    assert said in str(caught.value)


def test_an_emulated_machine_is_told_apart_by_its_interpreter() -> None:
    assert detect_model("linux,dummy-virt\0", "aarch64") == "virtual-arm64"
    assert detect_model("linux,dummy-virt\0", "armv7l") == "virtual-armhf"


CORAL = '[[delegate]]\nname = "coral"\nlibrary = "libedgetpu.so.1"\nops_delegated_min_pct = 95\n'


def test_a_boards_delegates_join_those_of_its_model_by_name(tmp_path: Path) -> None:
    model = 'schema = 1\nname = "own"\ncpu = "x"\n' + CORAL + CORAL.replace("coral", "npu").replace("95", "50")
    write(tmp_path / "config/targets/own.toml", model)
    mine = (
        CORAL + 'options = { device = "usb", performance = 2, verbose = true }\ncompile_command = ["./c", "{model}"]\n'
    )
    board = read_board(write(tmp_path / "config/targets/a.toml", PI.replace("raspberry-pi-4", "own") + mine))
    coral, npu = board.delegate
    assert (coral.name, npu.name) == ("coral", "npu")
    assert coral.worded_options == {"device": "usb", "performance": "2", "verbose": "true"}
    assert coral.compile_command == (str(tmp_path / "config/targets/c"), "{model}")
    assert npu.ops_delegated_min_pct == 50
    assert board.delegate_named("npu") is npu
    with pytest.raises(UserError, match="a declares no delegate gpu; it has coral, npu"):
        board.delegate_named("gpu")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("coral", "none"), "delegate.0: none stands for no delegate: choose another name"),
        (
            ("libedgetpu.so.1", "./libedgetpu.so"),
            "delegate.0: library ./libedgetpu.so is on the board: write an absolute",
        ),
        (("95", "0"), "delegate.0.ops_delegated_min_pct: Input should be greater than 0; found 0"),
        (("95", "101"), "delegate.0.ops_delegated_min_pct: Input should be less than or equal to 100; found 101"),
        (("95", '95\ncompile_command = ["c"]'), "delegate.0: compile_command names no {model}"),
        (("95", "95\nopts = 1"), "delegate.0.opts: unknown key"),
        (("95\n", "95\n" + CORAL), "delegate: two delegates are called coral"),
    ],
)
def test_a_delegate_that_can_not_be_is_one_line(tmp_path: Path, change: tuple[str, str], line: str) -> None:
    path = write(tmp_path / "pi4.toml", PI + CORAL.replace(*change, 1))
    with pytest.raises(ConfigError) as caught:
        read_board(path)
    (told,) = caught.value.lines()
    assert line in told
