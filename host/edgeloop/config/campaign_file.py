"""Reading a campaign: one TOML file and the files it names, resolved, checked, with all faults at once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeloop.core.campaign import Campaign, Plugins
from edgeloop.core.frozen import key_of
from edgeloop.core.limits import LimitSet
from edgeloop.core.network import NetworkSpec
from edgeloop.core.parse import parse_as, parse_toml
from edgeloop.core.plan import PLAN_KEYS, Environment, Plan
from edgeloop.errors import ConfigError, Fault, UserError, raise_faults
from edgeloop.host_runtime.model_files import digest
from edgeloop.models import FAMILIES
from edgeloop.search.larger_networks import SHAPES, Origin, grid
from edgeloop.sentences import command_line

_FILES = {  # keys whose value is a file (or `file.py:name`), by table
    "reference": ("file", "factory", "weights"),
    "task": ("loss", "agreement", "distillation"),
    "data": ("factory", "path"),
    "search": ("evaluation",),
    "plan": ("pipeline",),
}


def load_campaign(path: Path) -> Campaign:
    """Read a campaign; every path in it becomes absolute, taken from the folder of the file that names it.

    Raises UserError where the file is missing, ConfigError with all faults of it and of its limits file.
    """
    plain = parse_toml(read_text(path, f"a campaign; `{command_line('init')}` writes one"), str(path))
    faults: list[Fault] = []
    folder = path.resolve().parent
    for table, keys in _FILES.items():
        if isinstance(plain.get(table), dict):
            for key in keys:
                _resolve(plain[table], key, folder, f"{path}: {table}.{key}", faults)
    _resolve_larger(plain.get("reference"), folder, f"{path}: reference.larger", faults)
    metrics = plain.get("task", {}).get("metrics") if isinstance(plain.get("task"), dict) else None
    if isinstance(metrics, dict):
        for name in metrics:
            _resolve(metrics, name, folder, f"{path}: task.metrics.{name}", faults)
    if isinstance(plain.get("search"), dict):
        _resolve_storage(plain["search"], folder)
    limits = _limits(plain.get("limits"), folder, path, faults)
    plain["limits"] = limits if limits is not None else LimitSet()
    if isinstance(plain.get("plan"), dict):
        plain["plan"] = _plan(plain["plan"], plain["limits"], path, faults)
    elif "plan" not in plain:
        plain["plan"] = Plan.of("quick", confidence=plain["limits"].confidence)
    try:
        campaign = parse_as(Campaign, plain, str(path))
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from error
    if faults:
        raise ConfigError([*faults, *_unknown_family(campaign, f"{path}: ")])
    return checked_campaign(campaign, f"{path}: ")


def checked_campaign(campaign: Campaign, where: str = "") -> Campaign:
    """Return it. Raises ConfigError for what a campaign's own type lets through: an unknown family, no limit at all.

    `where` goes before each fault's place, such as `FILE: `.
    """
    faults = _unknown_family(campaign, where)
    if not campaign.limits.limit:
        faults.append(
            Fault(
                f"{where}limits", "no limit, so nothing could pass or fail", f"add one, as in `{command_line('init')}`"
            )
        )
    raise_faults(faults)
    return campaign


def _unknown_family(campaign: Campaign, where: str) -> list[Fault]:
    family = campaign.reference.family
    if family is None or family in FAMILIES:
        return []
    return [Fault(f"{where}reference.family", f"unknown family {family!r}", f"known are {', '.join(FAMILIES)}")]


def load_limits(path: Path) -> LimitSet:
    """Read a limits file. Raises UserError or ConfigError."""
    return parse_as(LimitSet, parse_toml(read_text(path, "a limits file"), str(path)), str(path))


def load_environment(path: Path) -> Environment:
    """Read a declared environment: the keys of a campaign's `[environment]`, with or without that heading.

    Raises UserError or ConfigError with all faults at once.
    """
    plain = parse_toml(read_text(path, "a file with the keys of a campaign's [environment]"), str(path))
    has_heading = set(plain) == {"environment"} and isinstance(plain["environment"], dict)
    return parse_as(Environment, plain["environment"] if has_heading else plain, str(path))


def campaign_key(campaign: Campaign) -> str:
    """Return a digest of the campaign and of the content of every file it names: a run is resumed with the same."""
    # Where a study is written down for others to look at decides nothing, so it may move; nor does what a process may
    # take, so a run that had too little of it goes on with more.
    search = campaign.search.model_copy(update={"storage": None})
    campaign = campaign.model_copy(update={"search": search})
    plain = campaign.model_dump(mode="json", exclude={"toolchain"})
    if campaign.plugins == Plugins():
        del plain["plugins"]  # a run of before there were any goes on
    return key_of("campaign", plain, [[name, digest(Path(name))] for name in sorted(set(_files_of(campaign)))])


def reference_network(campaign: Campaign) -> NetworkSpec:
    """M1 as a network, with the digests of the files it comes from."""
    reference = campaign.reference
    if reference.file is not None:
        return NetworkSpec(file=reference.file, file_sha256=digest(Path(reference.file)))
    return _own_network(campaign)


def larger_networks(campaign: Campaign) -> Origin:
    """Where M2 comes from; a list as networks, with the digests of the files they come from.

    Beside an M1 that is a file, the widths and depths of the search are such a list too.
    """
    larger = campaign.reference.larger
    if isinstance(larger, str):
        if campaign.reference.file is not None:
            return tuple(grid(_own_network(campaign), campaign.search, "factory"))
        return larger
    return tuple(
        NetworkSpec(
            factory=factory,
            source_sha256=digest(Path(factory.rpartition(":")[0])),
            layout=campaign.reference.layout,
            seed=campaign.training.seed,
            listed=True,
        )
        for factory in larger
    )


def _own_network(campaign: Campaign) -> NetworkSpec:
    """The network that a reference names by family or factory, at its own width and depth."""
    reference = campaign.reference
    source = reference.factory.rpartition(":")[0] if reference.factory else None
    return NetworkSpec(
        family=reference.family,
        factory=reference.factory,
        source_sha256=digest(Path(source)) if source else None,
        weights=reference.weights,
        weights_sha256=digest(Path(reference.weights)) if reference.weights else None,
        layout=reference.layout,
        width=reference.width,
        depth=reference.depth,
        seed=campaign.training.seed,
    )


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 file the user named. Raises UserError in one line."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", next_step=f"name {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text: {error}") from error


def _resolve(table: dict[str, Any], key: str, folder: Path, where: str, faults: list[Fault]) -> None:
    """Make `table[key]` absolute, and note a file that is not there."""
    value = table.get(key)
    if not isinstance(value, str) or not value:
        return
    file, colon, name = value.rpartition(":") if ".py:" in value else (value, "", "")
    absolute = (folder / Path(file).expanduser()).resolve()
    if not absolute.exists():
        faults.append(Fault(where, f"{absolute}: no such file", "paths are taken from the campaign's folder"))
    table[key] = f"{absolute}{colon}{name}"


def _resolve_storage(search: dict[str, Any], folder: Path) -> None:
    """A SQLite file is taken from the campaign's folder, as every path; `sqlite://` alone is a database in memory."""
    scheme, slashes, path = str(search.get("storage", "")).partition(":///")
    if slashes and scheme.startswith("sqlite") and path:
        search["storage"] = f"{scheme}:///{(folder / Path(path).expanduser()).resolve()}"


def _resolve_larger(reference: object, folder: Path, where: str, faults: list[Fault]) -> None:
    """The same for a list of networks that are given as M2."""
    if isinstance(reference, dict) and isinstance(reference.get("larger"), list):
        factories = {f"[{number}]": value for number, value in enumerate(reference["larger"])}
        for place in factories:
            _resolve(factories, place, folder, f"{where}{place}", faults)
        reference["larger"] = list(factories.values())


def _limits(value: object, folder: Path, path: Path, faults: list[Fault]) -> LimitSet | None:
    try:
        if isinstance(value, str):
            return load_limits(folder / value)
        if isinstance(value, list):
            return parse_as(LimitSet, {"limit": value}, f"{path}: limits")
        if isinstance(value, dict):
            return parse_as(LimitSet, value, f"{path}: limits")
    except ConfigError as error:
        faults.extend(error.faults)
    except UserError as error:
        faults.append(Fault(f"{path}: limits", error.message, error.next_step))
    else:
        what = "missing" if value is None else f"a file name or a list is wanted, found {value!r}"
        faults.append(Fault(f"{path}: limits", what, 'write [[limits]] tables or limits = "limits.toml"'))
    return None


def _plan(table: dict[str, Any], limits: LimitSet, path: Path, faults: list[Fault]) -> Plan:
    profile = table.get("profile", "quick")
    overrides = {key: value for key, value in table.items() if key != "profile"}
    for key in sorted(set(overrides) - set(PLAN_KEYS)):
        faults.append(Fault(f"{path}: plan.{key}", "unknown key", f"known keys are profile, {', '.join(PLAN_KEYS)}"))
        del overrides[key]
    try:
        return Plan.of(profile, confidence=limits.confidence, **overrides)
    except KeyError:
        faults.append(
            Fault(f"{path}: plan.profile", f"unknown profile {profile!r}", "it is quick, standard or qualification")
        )
    except ValidationError as error:
        for item in error.errors(include_url=False):
            key = ".".join(map(str, item["loc"]))
            place = f"{path}: plan.{key}" if key else f"{path}: plan"
            faults.append(Fault(place, item["msg"].removeprefix("Value error, ")))
    return Plan.of("quick", confidence=limits.confidence)


def _files_of(campaign: Campaign) -> Iterator[str]:
    """The files that a campaign's outcome depends on."""
    task, data = campaign.task, campaign.data
    for reference in (
        campaign.reference.factory,
        task.loss,
        task.agreement,
        task.distillation,
        data.factory,
        campaign.plan.pipeline,
        *task.metrics.values(),
        *(campaign.reference.larger if isinstance(campaign.reference.larger, tuple) else ()),
        campaign.search.evaluation if campaign.search.evaluation not in SHAPES else None,
    ):
        if reference:
            yield reference.rpartition(":")[0]
    if campaign.reference.weights:
        yield campaign.reference.weights
    if campaign.reference.file:
        yield campaign.reference.file
    if data.path and Path(data.path).is_file():
        yield data.path


def starter() -> str:
    """The campaign that `edgeloop init` writes."""
    return resources.files("edgeloop.config").joinpath("starter.toml").read_text(encoding="utf-8")


def write_starter(folder: Path) -> Path:
    """Write `campaign.toml` into a folder. Raises UserError where there is one already."""
    path = folder / "campaign.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as handle:
            handle.write(starter())
    except FileExistsError:
        raise UserError(f"{path}: there is one already", next_step="name another folder") from None
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror}", next_step="name another folder") from error
    return path
