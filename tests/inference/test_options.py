"""Groups of options, and the keywords of earlier versions."""

from dataclasses import dataclass

import pytest

from direct_deepen.inference.options import grouped, refuse_unknown


@dataclass(frozen=True)
class Group:
    size: float = 1.0
    count: int = 2


def test_keywords_make_a_group_and_are_taken_out():
    keywords = {"size": 3.0, "other": None}
    assert grouped("group", Group, None, keywords) == Group(3.0, 2)
    assert keywords == {"other": None}


def test_a_group_is_used_as_it_is_and_none_means_the_defaults():
    assert grouped("group", Group, Group(5.0), {"other": 1}) == Group(5.0)
    assert grouped("group", Group, None, {}) == Group()


def test_a_group_beside_its_keywords_is_refused(one_line_error):
    with one_line_error("size, count", "group", "Group(...)"):
        grouped("group", Group, Group(), {"size": 1.0, "count": 2})


def test_an_unknown_keyword_is_refused_as_python_does():
    refuse_unknown("function", {})
    with pytest.raises(TypeError, match=r"function\(\) got an unexpected keyword argument 'colour'"):
        refuse_unknown("function", {"colour": 1})
