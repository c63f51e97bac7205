"""Groups of options, and the keywords of earlier versions that say the same one by one; to be removed."""

from dataclasses import fields
from typing import Any

from direct_deepen.errors import require


def grouped[Group](name: str, kind: type[Group], group: Group | None, keywords: dict[str, Any]) -> Group:
    """Return the group of options ``name``: the one that is given, or one made of keywords, or the defaults.

    Keywords of the group, the names of its fields, are taken out of ``keywords``. A :class:`DeepenError` if there are
    both a group and keywords of it.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    given = {name: keywords.pop(name) for name in names if name in keywords}
    require(
        group is None or not given,
        f"{', '.join(given)} given beside {name}; allowed: either, and best {name}={kind.__name__}(...) alone",
    )
    return kind(**given) if group is None else group


def refuse_unknown(function: str, keywords: dict[str, Any]) -> None:
    """Raise what Python raises for a keyword that a function does not have."""
    for keyword in keywords:
        raise TypeError(f"{function}() got an unexpected keyword argument {keyword!r}")
