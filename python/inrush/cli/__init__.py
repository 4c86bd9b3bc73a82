"""The command `inrush`. Each command is a file of this folder.

Exit codes: 0 done, 1 data wrong, 2 usage, 3 source unreachable or refused, 4 budget or memory,
130 interrupted. With INRUSH_DEBUG set, errors come with their traceback.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. An error is one line on stderr."""
    from inrush._errors import Error
    from inrush._options import is_traced

    try:
        code = _app()(args=arguments, prog_name="inrush", standalone_mode=False)
        # The parser of the command line turns Ctrl-C into a code of its own.
        return _fail("interrupted", 130) if code == 130 else int(code or 0)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Error as error:
        if is_traced():
            raise
        return _fail(str(error), error.code)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return _fail(f"{error.strerror or error}: {error.filename}", 3)
    except MemoryError:
        return _fail("out of memory", 4)
    except Exception as error:
        # Whatever the parser of the command line raises can say what was wrong in one line.
        message = getattr(error, "format_message", None)
        if message is None or is_traced():
            raise
        return _fail(f"{message()} (see inrush --help)", 2)


def _fail(message: str, code: int) -> int:
    from inrush.cli._text import printable

    sys.stderr.write(f"inrush: {printable(' '.join(message.split()))}\n")
    return code


def _app() -> typer.Typer:
    import typer

    from inrush.cli import bench, cache, convert, doctor, inspect, load, manifest, verify

    app = typer.Typer(
        name="inrush",
        help="Loads model weights at the speed of the narrowest physical link.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.command("inspect")(inspect.inspect)
    app.command("load")(load.load)
    app.command("convert")(convert.convert)
    app.command("manifest")(manifest.manifest)
    app.command("verify")(verify.verify)
    app.command("bench")(bench.bench)
    app.command("doctor")(doctor.doctor)
    app.add_typer(cache.app, name="cache")
    return app
