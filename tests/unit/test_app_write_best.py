"""Into which folders the files of a network go that was compiled for several processors."""

from __future__ import annotations

from factories import make_artifact

from edgeloop.app.write_best import by_processor
from edgeloop.core.artifact import Artifact
from edgeloop.core.events import ArtifactBuilt


def compiled(sha256: str, processor: str) -> Artifact:
    tools = {"processor": processor}
    return make_artifact(path="model.so", sha256=sha256, deployed_bytes=1, tools=tools)


def built(first: Artifact, **elsewhere: Artifact) -> ArtifactBuilt:
    return ArtifactBuilt(trial=1, key="k", artifact=first, seconds=1, elsewhere=elsewhere)


A72, A53 = compiled("7" * 64, "aarch64-linux-gnu cortex-a72"), compiled("5" * 64, "aarch64-linux-gnu cortex-a53")


def test_one_file_goes_where_the_model_goes() -> None:
    assert by_processor(built(A72)) == {".": A72}


def test_each_processor_has_a_folder_however_many_targets_are_of_it() -> None:
    found = by_processor(built(A72, b=A53, c=A53))
    assert found == {"aarch64-cortex-a72": A72, "aarch64-cortex-a53": A53}


def test_two_files_for_processors_of_one_name_are_both_kept() -> None:
    native = compiled("9" * 64, "aarch64-linux-gnu cortex-a72")
    assert by_processor(built(A72, b=native)) == {"aarch64-cortex-a72": A72, "aarch64-cortex-a72-99999999": native}


def test_a_ledger_from_before_there_was_a_choice_has_one_file_for_every_target() -> None:
    told = {key: value for key, value in built(A72).model_dump(mode="json").items() if key != "elsewhere"}
    assert ArtifactBuilt.model_validate(told).on("any") == A72
