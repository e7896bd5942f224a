"""The command ``scisr``: arguments in, exit code out. Each subcommand's work is in :mod:`sciSR.commands`.

Exit codes: 0 done, 1 failed, 2 wrong input or usage, 130 interrupted. Every message is one line on stderr.
"""

from __future__ import annotations

import argparse
import gc
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import TracebackType
from typing import Any, NoReturn, TextIO

from sciSR import __version__
from sciSR.console import Console, one_line
from sciSR.errors import InputError, MissingFileError, OutputExistsError, SciSRError, SciSRWarning
from sciSR.files import remove_unfinished

__all__ = ["command", "main"]

_PATIENCE = 2.0
"""Seconds after which an interrupted run says what it still waits for."""
_stops: list[int] = []
_RARELY = 50_000
"""New objects between two looks; Python's own 700 make some forty while the libraries load."""
_GIVEN = argparse.SUPPRESS
"""Default of options that keep the workflow's own default unless they are given."""


def command() -> int:
    """:func:`main` as a process of its own, which seldom looks for garbage in circles, and not at its end.

    The several hundred thousand objects of the libraries live as long as it does: a second or two of a short run. What
    holds many bytes is freed without.
    """
    gc.set_threshold(_RARELY)
    try:
        with _caught_signals():
            return main()
    finally:
        gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code.

    Args:
        argv: the arguments without the program's name; None: those of this process.
    """
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    verdict = _Verdict(debug)
    with verdict, warnings.catch_warnings():
        arguments = _parser().parse_args(argv)
        console = Console(quiet=getattr(arguments, "quiet", False))
        verdict.console = console
        _prepare(console, debug)
        module = import_module(f"sciSR.commands.{arguments.module}")
        verdict.code = module.run(arguments, console)
        console.clear()
    return verdict.code


class _UsageError(InputError):
    """Arguments that do not parse."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}; see {self.prog} --help")


class _Verdict:
    """The exit code of what runs inside; every exception becomes its one line on stderr, unless ``debug``."""

    def __init__(self, debug: bool) -> None:
        self.code = 0
        self.debug = debug
        self.console = Console()

    def __enter__(self) -> _Verdict:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return True
        if isinstance(error, SystemExit):
            self.code = error.code if isinstance(error.code, int) else 0
            return True
        self.code = exit_code(error)
        if isinstance(error, BrokenPipeError):
            # whoever read our output has enough of it; Python would complain again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return True
        if self.debug and not isinstance(error, KeyboardInterrupt):
            self.console.clear()
            return False
        self.console.problem(_told(error))
        return True


def exit_code(error: BaseException) -> int:
    """0 done, 1 failed, 2 wrong input or usage, 130 interrupted, 143 and 129 by SIGTERM and SIGHUP."""
    if isinstance(error, KeyboardInterrupt):
        number = error.args[0] if error.args else signal.SIGINT
        return 128 + int(number)
    return 2 if isinstance(error, (InputError, MissingFileError, OutputExistsError)) else 1


def _told(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        left = getattr(error, "__notes__", ["unfinished outputs were removed"])
        return f"interrupted; {left[0]}"
    if isinstance(error, SciSRError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error or 'the machine has too little for this'}; try a smaller --tile"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {one_line(error)}; --debug shows where, please report it"


def _prepare(console: Console, debug: bool) -> None:
    """Warnings and log lines go to the console in one line each."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SciSRWarning) or debug:
            console.warn(str(message))

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a letter shows another, and does not fail
    warnings.showwarning = show
    warnings.simplefilter("always", SciSRWarning)
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="scisr: %(name)s: %(message)s")


@contextmanager
def _caught_signals() -> Iterator[None]:
    """Signals that are not ignored or caught by others end a run in order."""
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in known}
    ours = [number for number in known if before[number] in (signal.default_int_handler, signal.SIG_DFL)]
    for number in ours:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in () if _stops else ours:  # a stopped process may still wait for its threads
            signal.signal(number, before[number])


def _stop(number: int, frame: Any) -> None:
    """End the run as Ctrl-C does. What is under way is waited for; at the second time it is not, and files still go."""
    code = 128 + number
    if _stops:
        remove_unfinished()
        os.write(2, b"scisr: error: interrupted at once\n")
        os._exit(code)
    _stops.append(number)
    text = "scisr: stopping, once what is under way ends; once more: at once\n"
    waited = threading.Timer(_PATIENCE, sys.stderr.write, [text])
    waited.daemon = True
    waited.start()
    raise KeyboardInterrupt(signal.Signals(number))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="scisr",
        description=(
            "Super-resolution for NIfTI volumes and GeoTIFF scenes that keeps position, units and metadata. "
            "Own networks are trained by scisr run, with a workflow that has a train section."
        ),
        epilog="scisr COMMAND --help tells more. Exit codes: 0 done, 1 failed, 2 wrong input or usage.",
    )
    parser.add_argument("--version", action="version", version=f"scisr {__version__}")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_run, _upscale, _degrade, _evaluate, _info, _models, _check, _import, _export, _doctor):
        add(commands)
    return parser


def _command(commands: Any, name: str, module: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(module=module)
    parser.add_argument("--debug", action="store_true", default=_GIVEN, help="show where an error came from")
    return parser


def _run(commands: Any) -> None:
    parser = _command(
        commands, "run", "run", "run a workflow file (refine, judge, train), or remake an output from its run record"
    )
    parser.add_argument("workflow", metavar="W.yaml|X.run.json", help="workflow, or the record beside an output")
    parser.add_argument("-o", "--output", metavar="OUT", help="folder or file; default: the workflow's")
    _set_option(parser)
    _run_options(parser)
    _cluster_option(parser)


def _in_and_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="+", metavar="IN", help="files, addresses or patterns")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a file, or a folder (many inputs: always)"
    )


def _upscale(commands: Any) -> None:
    parser = _command(commands, "upscale", "upscale", "refine files: IN… -> OUT")
    _in_and_out(parser)
    parser.add_argument(
        "-m", "--model", required=True, metavar="NAME|FILE", dest="network",
        help="shipped weights (scisr models), a checkpoint, or nearest, linear, cubic, lanczos, ibp",
    )  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--scale", default=_GIVEN,
        help="factor on every spatial axis, but not across a single slice (2), or by name (z=4,y=2)",
    )  # fmt: skip
    size.add_argument(
        "--target-spacing", default=_GIVEN, metavar="SIZE",
        help="pixel size to reach in world units (1.0), by name (z=1.0), or isotropic",
    )  # fmt: skip
    _engine_options(parser)
    _file_options(parser)
    parser.add_argument("--sensor", default=_GIVEN, metavar="NAME", help="sensor for methods that assume one")
    parser.add_argument(
        "--report", action="store_true", help="judge by Wald's protocol, and draw a picture and an HTML report"
    )
    _run_options(parser)
    _cluster_option(parser)


def _degrade(commands: Any) -> None:
    parser = _command(commands, "degrade", "degrade", "coarsen files as a sensor would have seen them")
    _in_and_out(parser)
    parser.add_argument("--scale", required=True, help="how many times coarser: everywhere (2), or by name (z=4)")
    parser.add_argument("--sensor", required=True, metavar="NAME|FILE", help="a file of configs/sensors, or a path")
    parser.add_argument("--seed", type=int, default=_GIVEN, help="seed of the noise (default 0)")
    _file_options(parser)
    _run_options(parser)


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "evaluate", "compare a result with a reference and with baselines")
    parser.add_argument("result", metavar="RESULT")
    parser.add_argument("--reference", required=True, metavar="REF", help="the truth, on the result's grid")
    parser.add_argument("--low", metavar="LOW", help="what the result was made from; needed for baselines")
    parser.add_argument("--sensor", metavar="NAME|FILE", help="sensor between REF and LOW, for ibp and consistency")
    parser.add_argument(
        "--baseline", nargs="+", default=[], metavar="NAME", help="classical methods, such as cubic ibp"
    )
    parser.add_argument("--data-range", type=float, metavar="R", help="length of the value range of PSNR and SSIM")
    parser.add_argument("--mask", metavar="FILE", help="raster that is not 0 where the comparison counts")
    parser.add_argument("-o", "--output", metavar="TABLE", help="also write the table: .json or .md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--overwrite", action="store_true", help="replace TABLE")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _info(commands: Any) -> None:
    parser = _command(commands, "info", "info", "show what a file holds: geometry, axes, units, nodata, metadata")
    parser.add_argument("file", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _models(commands: Any) -> None:
    parser = _command(commands, "models", "models", "list the shipped weights, network families and classical methods")
    parser.add_argument("model", nargs="?", metavar="NAME|FILE", help="tell all about one")
    parser.add_argument(
        "--sensors", action="store_true", help="list the sensors instead, and where their figures are from"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _check(commands: Any) -> None:
    parser = _command(commands, "check", "check", "find every error of a workflow before any work starts")
    parser.add_argument("workflow", nargs="?", metavar="W.yaml|X.run.json")
    parser.add_argument("-o", "--output", metavar="OUT", help="folder or file; default: the workflow's")
    parser.add_argument("--overwrite", action="store_true", help="existing outputs are no error")
    parser.add_argument("--keys", action="store_true", help="explain every key of a workflow")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of workflow files")
    _set_option(parser)


def _import(commands: Any) -> None:
    parser = _command(commands, "import", "weights", "convert published PyTorch weights to a checkpoint")
    parser.add_argument("weights", metavar="weights.pth")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.safetensors")
    parser.add_argument("--name", help="short name of the weights; default: the file's")
    parser.add_argument("--scale", default=_GIVEN, type=int, help="factor, where the keys cannot tell")
    parser.add_argument("--residual-scale", default=_GIVEN, type=float, metavar="S")
    parser.add_argument("--value-range", default=_GIVEN, type=float, metavar="R", help="1 or 255")
    parser.add_argument("--padding", default=_GIVEN, choices=("zeros", "replicate"))
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def _export(commands: Any) -> None:
    parser = _command(commands, "export", "export", "write a network as ONNX, its axes free")
    parser.add_argument("model", metavar="NAME|FILE")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.onnx")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def _doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", "doctor", "show versions, threads, devices and optional parts")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="change a setting, such as --set upscale.scale=3; may come many times",
    )  # fmt: skip


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
    parser.add_argument("--resume", action="store_true", help="keep outputs that are whole and up to date, do the rest")
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")


def _cluster_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scheduler", metavar="ADDRESS", help="compute on a dask cluster: tcp://host:8786")


def _engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument("--device", default=_GIVEN, help="auto, cpu, cuda, cuda:1, …")
    group.add_argument("--precision", default=_GIVEN, help="auto, float32, bf16, fp16, int8")
    group.add_argument("--backend", default=_GIVEN, help="auto, torch, compile, openvino")
    group.add_argument(
        "--tile", default=_GIVEN, type=_tile, metavar="PX", help="pixels per axis, auto, or none (whole)"
    )
    group.add_argument("--exact", action="store_true", default=_GIVEN, help="read the whole receptive field")
    group.add_argument(
        "--normalization", default=_GIVEN, metavar="NAME|FILE",
        help="instead of the model's own: a file of configs/normalizations, or a path",
    )  # fmt: skip
    group.add_argument("--workers", default=_GIVEN, type=int, help="tiles or strips worked on at once")


def _file_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    labels = group.add_mutually_exclusive_group()
    labels.add_argument("--labels", action="store_true", default=_GIVEN, help="the input is a label map")
    labels.add_argument("--not-labels", action="store_false", default=_GIVEN, dest="labels", help="it is none")
    group.add_argument("--join", action="store_true", default=_GIVEN, help="all inputs are bands or tiles of one scene")
    group.add_argument("--series", default=_GIVEN, help="which series of a DICOM folder that holds several")
    group.add_argument("--offset", default=_GIVEN, type=float, help="radiometric offset the file does not state")
    group.add_argument("--nodata", default=_GIVEN, type=float, help="value that means no value, unstated in the file")
    group.add_argument("--unit", default=_GIVEN, help="unit of the values, unstated in the file, such as HU")
    group.add_argument("--suffix", default=_GIVEN, help="ending of the outputs in a folder, such as .tif")
    group.add_argument("--dtype", default=_GIVEN, help="stored number type, such as float32; default the input's")
    group.add_argument("--compress", default=_GIVEN, help="of a GeoTIFF: deflate, zstd, lzw, none")
    group.add_argument("--cog", action="store_true", default=_GIVEN, help="write cloud-optimised GeoTIFF")


def _tile(text: str) -> int | str | None:
    if text == "auto":
        return text
    if text in ("none", "null", "whole"):
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} came, expected pixels, auto or none")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
