from __future__ import annotations

import inspect

import pytest

from sciSR import errors

ERRORS = [
    value
    for name in errors.__all__
    if inspect.isclass(value := getattr(errors, name)) and issubclass(value, errors.SciSRError)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_message_is_what_was_said(error: type[errors.SciSRError]) -> None:
    text = "ct_017.nii.gz: spacing 0 on axis x; repair the header"
    assert str(error(text)) == text
    with pytest.raises(errors.SciSRError, match="ct_017"):
        raise error(text)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.GeometryError, ValueError),
        (errors.FormatError, ValueError),
        (errors.CheckpointError, ValueError),
        (errors.ConfigError, ValueError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.OutputExistsError, FileExistsError),
        (errors.RunError, RuntimeError),
        (errors.ResourceError, MemoryError),
    ],
)
def test_each_error_may_be_caught_as_the_builtin_it_resembles(
    error: type[errors.SciSRError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin):
        raise error("x")


def test_a_file_error_without_message_prints() -> None:
    assert str(errors.MissingFileError()) == ""
    assert str(errors.OutputExistsError()) == ""


def test_warnings_can_be_filtered_together() -> None:
    for name in ("MetadataWarning", "PrecisionWarning", "RadiometryWarning"):
        assert issubclass(getattr(errors, name), errors.SciSRWarning)
    assert issubclass(errors.SciSRWarning, UserWarning)


def test_all_names_every_class() -> None:
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert set(errors.__all__) == defined
