"""Find a study by name: ours, or one that another package declares as an entry point."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from loopwm.errors import ConfigError, remedy
from loopwm.study.recipe import Recipe

# In a package's pyproject.toml: [project.entry-points."loopwm.studies"], name = "module:RECIPE".
GROUP = "loopwm.studies"


def find_recipe(name: str, own: Mapping[str, Recipe]) -> Recipe:
    """Return the study of that name; of other packages, only the one asked for is imported.

    Args:
        name: Name of the study.
        own: The studies of this package, by name; they come first.

    Raises:
        ConfigError: If there is no study of that name, or if what another
            package declares under it cannot be imported or is no `Recipe`.
    """
    declared = {each.name: each for each in entry_points(group=GROUP)}
    if name in own:
        return own[name]
    if name not in declared:
        known = dict.fromkeys([*own, *declared])
        raise ConfigError(f"there is no study {name!r}; {remedy(name, known)}")
    return _load(declared[name])


def _load(declared: EntryPoint) -> Recipe:
    source = f"the study {declared.name!r} is declared as {declared.value!r}"
    try:
        recipe = declared.load()
    # Whatever goes wrong in a module of others while it is imported.
    except Exception as error:
        raise ConfigError(
            f"{source}, which cannot be imported ({type(error).__name__}: {error}); "
            "mend or uninstall the package that declares it"
        ) from error
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{source}, which is no Recipe but an object of {type(recipe).__name__}")
    return recipe
