"""Groups of options, and the keywords of earlier versions that say the same one by one; to be removed."""

from dataclasses import fields
from typing import Any

from direct_deepen.errors import require
from direct_deepen.parts import check_settings


def grouped[Group](name: str, kind: type[Group], group: Group | None, keywords: dict[str, Any]) -> Group:
    """Return the group of options ``name``: the one that is given, or one made of keywords, or the defaults.

    Keywords of the group, the names of its fields, are taken out of ``keywords``. A :class:`DeepenError` if there are
    both a group and keywords of it, or if a number is out of range.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    given = {key: keywords.pop(key) for key in names if key in keywords}
    require(
        group is None or not given,
        f"{', '.join(given)} given beside {name}; allowed: either, and best {name}={kind.__name__}(...) alone",
    )
    result = kind(**given) if group is None else group
    check_settings(result, name)
    return result


def refuse_unknown(function: str, keywords: dict[str, Any]) -> None:
    """Raise what Python raises for a keyword that a function does not have."""
    for keyword in keywords:
        raise TypeError(f"{function}() got an unexpected keyword argument {keyword!r}")
