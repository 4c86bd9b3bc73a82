"""What importing the package costs and brings in."""

import subprocess
import sys

from conftest import heed_ctrl_c

# How long it takes is measured by `make bench`; what it brings in is what makes it long.
HEAVY = ("numpy", "torch", "typer", "rich", "matplotlib", "click", "logging", "json", "inspect")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_brings_in_no_framework():
    code = f"import inrush, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code) == "[]"


def test_opening_and_loading_imports_no_framework(every_dtype):
    path, _ = every_dtype
    code = (
        f"import inrush, sys; inrush.open({str(path)!r}).load();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_submodules_come_when_asked_for():
    assert run("import inrush; print(callable(inrush.numpy.load_file))") == "True"


def test_every_public_name_exists():
    assert run("import inrush; print(all(hasattr(inrush, n) for n in inrush.__all__))") == "True"


# A signal comes while the engine's set-up is in Python's enum, where no exception may leave it.
SIGNAL_IN_MID_IMPORT = """
import os, signal, sys

def interrupt(frame, event, argument):
    if event != "call" or not frame.f_code.co_filename.endswith("enum.py"):
        return
    outer = frame.f_back
    while outer and outer.f_code.co_name != "exec_module":
        outer = outer.f_back
    if outer and type(outer.f_locals["self"]).__name__ == "ExtensionFileLoader":
        sys.setprofile(None)
        print("sent", flush=True)
        os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(interrupt)
"""


def interrupted(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_MID_IMPORT + code],
        capture_output=True, text=True, check=False, preexec_fn=heed_ctrl_c,
    )  # fmt: skip


def test_ctrl_c_while_the_engine_is_imported_is_a_keyboard_interrupt():
    done = interrupted("""
try:
    import inrush
except KeyboardInterrupt:
    import inrush
    print(inrush.open is not None)
""")
    assert (done.returncode, done.stdout) == (0, "sent\nTrue\n"), done.stderr


def test_handlers_of_signals_are_called_once_the_engine_is_imported():
    done = interrupted("""
def handler(number, frame):
    print(number == signal.SIGINT, frame is not None)

signal.signal(signal.SIGINT, handler)
import inrush
print(signal.getsignal(signal.SIGINT) is handler)
""")
    assert (done.returncode, done.stdout) == (0, "sent\nTrue True\nTrue\n"), done.stderr


def test_a_thread_that_handles_no_signals_imports_it():
    code = """
import threading
thread = threading.Thread(target=__import__, args=("inrush",))
thread.start(); thread.join()
import sys
print("inrush._core" in sys.modules)
"""
    assert run(code) == "True"


def test_ctrl_c_while_the_command_is_imported_is_one_line_and_its_exit_code():
    done = interrupted("""
import inrush_command
inrush_command.main()
""")
    assert (done.returncode, done.stdout, done.stderr) == (130, "sent\n", "inrush: interrupted\n")
