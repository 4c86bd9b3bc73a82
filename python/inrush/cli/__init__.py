"""The command `inrush`. Each command is a file of this folder.

Exit codes: 0 done, 1 data wrong, 2 usage, 3 source unreachable or refused, 4 budget or memory,
130 interrupted. With INRUSH_DEBUG set, errors come with their traceback.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
import traceback
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    import typer


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by who started us: nobody wants to see it
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        # Names are shown whatever the locale's encoding: what it lacks is escaped.
        getattr(sys, stream).reconfigure(errors="backslashreplace")
    sys.stdout = _Unread(sys.stdout)
    warnings.showwarning = _warned
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence()
        if not isinstance(error, BrokenPipeError):
            code = code or _fail(_told(error), 3)
    sys.exit(code)


class _Unread:
    """Standard output that somebody may stop reading: the exit code is the command's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            _silence()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _silence()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. An error is one line on stderr, and with --json an object."""
    try:
        code = _app()(args=arguments, prog_name="inrush", standalone_mode=False)
        # The parser of the command line turns Ctrl-C into a code of its own.
        problem, code = ("interrupted", 130) if code == 130 else ("", int(code or 0))
    except (BrokenPipeError, SystemExit):  # who read our output has seen enough
        _silence()
        return 3
    except (Exception, KeyboardInterrupt) as error:
        problem, code = _judged(error)
    if problem:
        _fail(problem, code)
        _print_error(arguments, problem, code)
    return code


def _judged(error: BaseException) -> tuple[str, int]:
    """One line about an error, and its exit code; raised again where it is no user's."""
    from inrush._errors import Error
    from inrush._options import is_traced

    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, MemoryError) and not isinstance(error, Error):
        return "out of memory", 4
    # Whatever the parser of the command line raises can say what was wrong in one line.
    message = getattr(error, "format_message", None)
    if isinstance(error, Error):
        judged = str(error), error.code
    elif isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        judged = f"{_told(error)} (raise the limit: ulimit -n 4096)", 4
    elif isinstance(error, OSError):
        judged = _told(error), 3
    elif message is not None:
        judged = f"{message()} (see inrush --help)", 2
    else:
        raise error
    if is_traced():
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
    return judged


def _told(error: OSError) -> str:
    what = error.strerror or str(error)
    return what if error.filename is None else f"{what}: {error.filename}"


def _fail(message: str, code: int) -> int:
    _say(message)
    return code


def _say(message: str) -> None:
    from inrush.cli._text import printable

    with contextlib.suppress(OSError):
        sys.stderr.write(f"inrush: {printable(' '.join(message.split()))}\n")


def _warned(message: Warning | str, *_where: Any, **_more: Any) -> None:
    # Which line of ours it comes from tells a user nothing.
    _say(f"warning: {message}")


def _print_error(arguments: list[str], problem: str, code: int) -> None:
    words = list(itertools.takewhile(lambda word: word != "--", arguments))
    if "--json" not in words:
        return
    from inrush.cli._common import print_json

    plain = [word for word in words if not word.startswith("-")]
    command = " ".join(plain[: 2 if plain[:1] == ["cache"] else 1])
    try:
        print_json(command, {"error": " ".join(problem.split()), "code": code})
        sys.stdout.flush()
    except OSError:
        _silence()


def _silence() -> None:
    # What is buffered still cannot be written, and would be tried once more at the end.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _app() -> typer.Typer:
    import typer

    from inrush.cli import bench, cache, convert, doctor, inspect, load, manifest, verify
    from inrush.cli._common import overview

    app = typer.Typer(
        name="inrush",
        help="Loads model weights at the speed of the narrowest physical link.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(overview)
    app.command("inspect")(inspect.inspect)
    app.command("load")(load.load)
    app.command("convert")(convert.convert)
    app.command("manifest")(manifest.manifest)
    app.command("verify")(verify.verify)
    app.command("bench")(bench.bench)
    app.command("doctor")(doctor.doctor)
    app.add_typer(cache.app, name="cache")
    return app
