"""The errors and warnings that sciSR raises.

Every error derives from :class:`SciSRError` and from the builtin exception that it resembles, so that a caller may
catch either. A message names the file or axis, says what was wrong, which value came, what was expected, and what
to do about it, in one line.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "FormatError",
    "GeometryError",
    "InputError",
    "MetadataWarning",
    "MissingFileError",
    "OutputExistsError",
    "PrecisionWarning",
    "RadiometryWarning",
    "ResourceError",
    "RunError",
    "SciSRError",
    "SciSRWarning",
]


class SciSRError(Exception):
    """Any error that sciSR raises on purpose; the command line prints its message in one line."""


class InputError(SciSRError, ValueError):
    """An argument or an input that cannot be used as it is (exit code 2)."""


class GeometryError(InputError):
    """A position, spacing, shape or frame that is impossible or does not fit."""


class FormatError(InputError):
    """A file that is not what its name or its header says: truncated, lying or unsupported."""


class CheckpointError(InputError):
    """A file that is not a checkpoint, or a checkpoint that does not fit its network."""


class ConfigError(InputError):
    """A workflow or a setting that is not valid; the message names the key."""


class MissingFileError(SciSRError, FileNotFoundError):
    """A file or folder that is not there (exit code 2)."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class OutputExistsError(SciSRError, FileExistsError):
    """An output that is there already and was not to be overwritten (exit code 2)."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RunError(SciSRError, RuntimeError):
    """Work that began and could not be finished (exit code 1)."""


class ResourceError(RunError, MemoryError):
    """Too little memory, disk or device for the work (exit code 1)."""


class SciSRWarning(UserWarning):
    """Any warning that sciSR gives."""


class MetadataWarning(SciSRWarning):
    """Metadata that could not be kept, or that contradicts itself; the message says what was done."""


class RadiometryWarning(SciSRWarning):
    """Values and their stated scale, offset or range contradict each other."""


class PrecisionWarning(SciSRWarning):
    """A result in another precision than the one asked for."""
