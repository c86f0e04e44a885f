"""The names of models."""

import pytest

from banana.google.models import ModelNames, is_model_name


@pytest.mark.parametrize("name", ["gemini-3-pro-image", "gemini-3.1_x", "A"])
def test_names_that_can_be_a_models(name: str) -> None:
    """Letters, digits, and - . _ among them."""
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["m" * 129, "", "..", "a/b", "a b", "é", "a\n", "models/x", "a:b", "a?b"])
def test_names_that_would_change_the_path_are_none(name: str) -> None:
    """A name is one part of a path, and cannot leave it."""
    assert not is_model_name(name)


def test_a_name_is_sent_as_its_alias() -> None:
    """None is the default, which may have an alias too; a name without one goes as it is."""
    names = ModelNames("old", {"old": "new"})

    assert [names.resolve(name) for name in (None, "", "old", "other")] == ["new", "new", "new", "other"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-image-2", "large"),
        ("gpt-image-2-mini", "small"),
        ("gpt-image-1", "exact"),
        ("gpt-image", "gpt-image"),
        ("my-gpt-image-2", "my-gpt-image-2"),
    ],
)
def test_a_pattern_stands_for_many_names(name: str, model: str) -> None:
    """A name goes before a pattern, the longer pattern before the shorter, and a pattern is for the whole name."""
    aliases = {"gpt-image-*": "large", "gpt-image-*-mini": "small", "gpt-image-1": "exact"}

    assert ModelNames("default", aliases).resolve(name) == model
