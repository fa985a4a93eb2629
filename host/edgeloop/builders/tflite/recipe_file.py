"""Reading `recipe.json` of a trained folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgeloop.core.recipe import Recipe
from edgeloop.errors import BuildError


def read_recipe(network_folder: Path) -> Recipe:
    """Return the recipe of a trained folder. Raises OSError, BuildError for one that is not known here."""
    path = network_folder / "recipe.json"
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise BuildError(f"{path}: is not known here: {place}: {fault['msg']}") from error
