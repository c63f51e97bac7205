"""What the test of a spawned process runs there: as little as possible besides DIRECT's own look-up."""

from direct.environment import load_model_from_name


def names_found_by_direct(names: list[str]) -> list[str]:
    return [f"{model.__module__}.{model.__name__}" for model in map(load_model_from_name, names)]
