"""The command line: output in pipes, JSON, exit codes, one line for an error."""

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time

import numpy
import pytest
import safetensors.numpy
from conftest import DTYPES, heed_ctrl_c, random_tensor, write_file

import inrush

COMMANDS = ("inspect", "load", "manifest", "verify", "bench", "doctor")


def answer(done):
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    return document


def failed(done, code):
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.startswith("inrush: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_help_lists_every_command(inrush_command):
    done = inrush_command("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    for command in COMMANDS:
        text = inrush_command(command, "--help").stdout
        assert "--json" in text


def test_every_word_is_a_flag_of_load(inrush_command):
    text = inrush_command("load", "--help").stdout
    for word in inrush._options.WORDS:
        assert f"--{word.replace('_', '-')}" in text


def test_inspect(inrush_command, sharded):
    folder, contents = sharded
    document = answer(inrush_command("inspect", folder, "--json"))
    assert document["count"] == len(contents) == len(document["tensors"])
    for entry in document["tensors"]:
        dtype, shape, data = contents[entry["name"]]
        assert (entry["dtype"], entry["shape"], entry["nbytes"]) == (dtype, shape, len(data))
    assert len(document["files"]) == 2
    text = inrush_command("inspect", folder).stdout
    assert "model.layers.{0..1}.q.weight" in text
    assert "1024 x 256" in text
    assert "metadata format" in text
    assert "model.layers.1.q.weight" in inrush_command("inspect", folder, "--all").stdout


def test_inspect_shows_every_dtype(inrush_command, every_dtype):
    text = inrush_command("inspect", every_dtype[0]).stdout
    assert all(dtype in text for dtype in DTYPES)
    assert "scalar" in text


def test_names_with_brackets_and_control_characters_do_not_garble(inrush_command, tmp_path):
    names = ["[red]x[/red]", "a\x1b[31mb", "line\nbreak"]
    arrays = {name: numpy.zeros(3, "f4") for name in names}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors")
    done = inrush_command("inspect", tmp_path / "x.safetensors", "--all")
    assert "[red]x[/red]" in done.stdout
    assert "\x1b" not in done.stdout
    names_read = {one["name"] for one in answer(
        inrush_command("inspect", tmp_path / "x.safetensors", "--json")
    )["tensors"]}  # fmt: skip
    assert names_read == set(names)


def test_what_the_locales_encoding_lacks_is_escaped(inrush_command, tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"\u00e9" * 300: random_tensor("F32", [1])})
    for words in (("inspect", path), ("load", path, "--include", "\u00e9?")):
        done = inrush_command(*words, PYTHONIOENCODING="ascii")
        assert done.returncode in (0, 2), done.stderr
        assert r"\xe9" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_load(inrush_command, sharded):
    folder, contents = sharded
    document = answer(inrush_command("load", folder, "--json"))
    assert document["stats"]["bytes"] == sum(len(data) for _, _, data in contents.values())
    assert document["stats"]["tensors"] == len(contents)
    assert "facts" not in document
    done = inrush_command("load", folder)
    assert "GB/s" in done.stdout or "mapped" in done.stdout
    assert done.stderr == ""


def test_load_explains_itself(inrush_command, sharded):
    folder, _ = sharded
    document = answer(inrush_command("load", folder, "--explain", "--json"))
    assert document["choice"]["why"]
    assert document["facts"]["blobs"] == 2
    assert set(document["limit"]) == {"state", "bytes_per_second", "bytes", "seconds", "method"}
    text = inrush_command("load", folder, "--explain").stdout
    for word in ("machine", "filesystem", "page cache", "choice", "because", "lanes", "limit"):
        assert word in text


def test_load_takes_every_word_as_a_flag(inrush_command, sharded, tmp_path):
    folder, contents = sharded
    out = tmp_path / "part.safetensors"
    flags = ["--device", "cpu", "--backend", "pread_buffered", "--strict", "--budget", "8MiB",
             "--page-cache", "keep", "--mapping", "never", "--include", "*.q.*",
             "--include", "*.norm.weight", "--exclude", "*.bias",
             "--order", "model.layers.1.q.weight,model.layers.0.q.weight",
             "--slices", "*.q.weight=:16, 8:24", "--out", out]  # fmt: skip
    document = answer(inrush_command("load", folder, *flags, "--json"))
    assert document["stats"]["choice"] == "pread_buffered"
    assert document["stats"]["tensors"] == 2
    with safetensors.safe_open(out, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) == {"model.layers.0.q.weight", "model.layers.1.q.weight"}
        part = opened.get_tensor("model.layers.1.q.weight")
    whole = numpy.frombuffer(contents["model.layers.1.q.weight"][2], "u2").reshape(1024, 256)
    import torch

    numpy.testing.assert_array_equal(part.view(torch.uint16).numpy(), whole[:16, 8:24])


def test_the_environment_is_heard(inrush_command, sharded, tmp_path):
    folder, _ = sharded
    out = tmp_path / "all.safetensors"
    words = {"INRUSH_BACKEND": "PREAD_BUFFERED", "INRUSH_OUT": str(out), "INRUSH_INCLUDE": "*.bias"}
    document = answer(inrush_command("load", folder, "--json", **words))
    assert document["stats"]["choice"] == "pread_buffered"
    assert document["stats"]["tensors"] == 2
    assert out.exists()


def test_load_writes_trace_and_plot(inrush_command, sharded, tmp_path):
    pytest.importorskip("matplotlib")
    trace, plot = tmp_path / "t.json", tmp_path / "t.png"
    done = inrush_command("load", sharded[0], "--trace", trace, "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert json.loads(trace.read_text())["traceEvents"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_manifest_and_verify(inrush_command, sharded, tmp_path):
    folder, contents = sharded
    manifest = tmp_path / "manifest.json"
    document = answer(inrush_command("manifest", folder, "-o", manifest, "--json"))
    assert document["count"] == len(contents)
    assert answer(inrush_command("verify", folder, "--json"))["ok"] is True
    done = answer(inrush_command("verify", folder, "--manifest", manifest, "--json"))
    assert (done["ok"], done["differences"]) == (True, [])
    assert "agree" in inrush_command("verify", folder, "--manifest", manifest).stdout


def test_what_is_checked_is_everything_whatever_the_environment_presets(
    inrush_command, sharded, tmp_path
):
    folder, contents = sharded
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    presets = {
        "INRUSH_INCLUDE": "model.layers.0.q.bias",
        "INRUSH_SLICES": "model.layers.0.q.bias=0:1",
        "INRUSH_DEVICE": "cuda:0",
    }
    answer(inrush_command("manifest", folder, "-o", whole, "--json"))
    done = answer(inrush_command("manifest", folder, "-o", cut, "--json", **presets))
    assert done["count"] == len(contents)
    assert cut.read_bytes() == whole.read_bytes()
    shard = folder / "model-00002-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1000] ^= 1
    shard.write_bytes(data)
    done = inrush_command("verify", folder, "--manifest", whole, "--json", **presets)
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False


def test_an_order_of_names_and_patterns_selects_and_orders(inrush_command, sharded):
    folder, contents = sharded
    order = "*.norm.weight,model.layers.1.q.bias"
    done = answer(inrush_command("load", folder, "--order", order, "--json"))
    assert done["stats"]["tensors"] == 3
    names = [f"model.layers.{layer}.norm.weight" for layer in range(2)]
    loaded = inrush.open(folder).load(order=order.split(","))
    assert list(loaded) == [*names, "model.layers.1.q.bias"]
    assert bytes(memoryview(loaded[names[0]]).cast("B")) == contents[names[0]][2]


def test_verify_finds_one_flipped_bit(inrush_command, sharded, tmp_path):
    folder, _ = sharded
    manifest = tmp_path / "manifest.json"
    inrush_command("manifest", folder, "-o", manifest)
    shard = folder / "model-00002-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1000] ^= 1
    shard.write_bytes(data)
    done = inrush_command("verify", folder, "--manifest", manifest, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert [one["what"] for one in document["differences"]] == ["digest"]
    done = inrush_command("verify", folder, "--manifest", manifest)
    assert done.returncode == 1
    assert document["differences"][0]["name"] in done.stdout


def test_doctor(inrush_command, sharded):
    document = answer(inrush_command("doctor", "--json"))
    assert document["machine"]["cpus"] >= 1
    assert document["facts"] is None
    document = answer(inrush_command("doctor", sharded[0], "--json"))
    assert document["facts"]["filesystem"]["type"]
    assert [limit["state"] for limit in document["limits"]] == ["cold", "warm"]
    assert {one["name"] for one in document["backends"]} == {one.name for one in inrush.Backend}
    assert "backend" in inrush_command("doctor").stdout


def test_bench(inrush_command, sharded):
    folder, contents = sharded
    document = answer(inrush_command("bench", folder, "--runs", "1", "--json"))
    results = {(one["contender"], one["state"]): one for one in document["results"]}
    assert ("inrush", "warm") in results
    assert ("safetensors", "warm") in results
    size = sum(len(data) for _, _, data in contents.values())
    for one in results.values():
        assert one["note"] or (one["bytes"] == size and len(one["seconds"]) == 1)
    assert not results["inrush", "warm"]["note"]
    assert not results["safetensors", "warm"]["note"]


def test_bench_takes_the_files_of_a_checkpoint(inrush_command, sharded):
    folder, contents = sharded
    files = sorted(str(path) for path in folder.glob("*.safetensors"))
    assert len(files) > 1
    document = answer(inrush_command("bench", *files, "--runs", "1", "--json"))
    results = {(one["contender"], one["state"]): one for one in document["results"]}
    assert results["inrush", "warm"]["bytes"] == sum(len(d) for _, _, d in contents.values())


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("inspect", "/no/such"), 3, "/no/such"),
        (("load", "/no/such"), 3, "/no/such"),
        (("nosuchcommand",), 2, "nosuchcommand"),
        (("load",), 2, "SOURCE"),
        (("load", "x", "--nosuchflag"), 2, "nosuchflag"),
        (("bench", "x", "--runs", "0"), 2, "--runs"),
        (("verify", "{folder}", "--manifest", "/no/such"), 3, "/no/such"),
        (("verify", "{folder}", "--manifest", "{folder}"), 3, "irectory"),
        (("load", "{folder}", "--backend", "floppy"), 2, "floppy"),
        (("load", "{folder}", "--device", "toaster"), 2, "toaster"),
        (("load", "{folder}", "--include", "nothing"), 2, "nothing"),
        (("load", "{folder}", "--slices", "x"), 2, "slices"),
        (("load", "{folder}", "--budget", "4096"), 4, "least"),
        (("load", "{folder}", "--out", "/no/such/x.safetensors"), 3, "/no/such"),
        (("manifest", "{folder}", "-o", "/no/such/x.json"), 3, "/no/such"),
        (("load", "{folder}", "--trace", "/no/such/x.json"), 3, "/no/such"),
        (("load", "{folder}", "--trace", "/etc/passwd/x.json"), 3, "/etc/passwd"),
        (("load", "{folder}", "--trace", "/dev/full"), 3, "No space left"),
        (("load", "{folder}", "--plot", "/etc/passwd/x.png"), 3, "/etc/passwd"),
        (("load", "{folder}", "--plot", "/no/such/x.png"), 3, "/no/such"),
        (("load", "{folder}", "--plot", "t.xyz"), 2, ".png"),
        (("load", "{folder}", "--plot", "t3"), 2, ".png"),
        (("manifest", "{folder}", "-o", "/dev/full"), 3, "No space left"),
        (("load", "gopher://x"), 2, "gopher"),
    ],
)
def test_errors_are_one_line_and_a_code(inrush_command, sharded, arguments, code, text):
    arguments = [one.replace("{folder}", str(sharded[0])) for one in arguments]
    assert text in failed(inrush_command(*arguments), code)


@pytest.mark.parametrize(
    ("arguments", "command", "code"),
    [
        (("load", "/no/such", "--json"), "load", 3),
        (("--json", "inspect", "x"), "inspect", 2),
        (("load", "--json", "x", "--nosuchflag"), "load", 2),
        (("verify", "{folder}", "--json", "--manifest", "/no/such"), "verify", 3),
        (("load", "{folder}", "--json", "--budget", "4096"), "load", 4),
        (("cache", "rm", "--json", "--cache-dir", "/etc/passwd"), "cache rm", None),
    ],
)
def test_an_error_is_json_too_where_json_is_asked_for(
    inrush_command, sharded, arguments, command, code
):
    done = inrush_command(*(one.replace("{folder}", str(sharded[0])) for one in arguments))
    document = json.loads(done.stdout)
    assert document.keys() == {"schema_version", "command", "error", "code"}
    assert document["command"] == command
    assert document["code"] == done.returncode == (code or done.returncode) != 0
    assert done.stderr == f"inrush: {document['error']}\n"


@pytest.mark.parametrize("arguments", [("inspect", "{folder}"), ("load", "{folder}", "--json")])
def test_output_that_cannot_be_written_is_an_error_and_what_nobody_wants_is_none(
    sharded, arguments
):
    words = " ".join(arguments).format(folder=sharded[0])

    def outcome(redirection):
        shell = f"{sys.executable} -m inrush {words} {redirection}"
        return subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True, check=False)

    full = outcome("> /dev/full")
    assert "No space left" in failed(full, 3)
    for redirection in (">&-", "2>&-"):
        done = outcome(redirection)
        assert (done.returncode, done.stderr) == (0, ""), redirection


def test_a_reader_that_leaves_hears_nothing_more(sharded):
    child = subprocess.Popen(
        [sys.executable, "-m", "inrush", "inspect", "--all", sharded[0]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.stdout.close()
    error = child.stderr.read()
    child.stderr.close()
    assert (child.wait(), error) == (0, "")


def test_a_traceback_changes_neither_code_nor_json(inrush_command, tmp_path):
    done = inrush_command("load", tmp_path / "nowhere", "--json", INRUSH_DEBUG="1")
    assert done.returncode == 3
    assert json.loads(done.stdout)["code"] == 3
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("inrush: ")


def test_a_home_that_cannot_be_written_to_is_nothing_to_speak_of(inrush_command, sharded, tmp_path):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/proc/none")
    done = inrush_command("load", sharded[0], "--plot", tmp_path / "t.png", **nowhere)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_told(inrush_command):
    assert inrush_command("--version").stdout == f"inrush {inrush.__version__}\n"


def test_a_manifest_follows_links_and_keeps_modes(inrush_command, sharded, tmp_path):
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    answer(inrush_command("manifest", sharded[0], "-o", link, "--json"))
    assert link.is_symlink()
    assert json.loads(target.read_text())["schema_version"] == 1
    assert target.stat().st_mode & 0o777 == 0o640
    made = tmp_path / "new.json"
    answer(inrush_command("manifest", sharded[0], "-o", made, "--json"))
    (tmp_path / "plain").write_text("")
    assert made.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert inrush_command("manifest", sharded[0], "-o", "/dev/null").returncode == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    folder = tmp_path / "taken"
    folder.mkdir()
    failed(inrush_command("manifest", sharded[0], "-o", folder), 3)
    assert not list(tmp_path.glob("*partial")) + list(tmp_path.glob(".*"))


def test_nothing_is_above_the_limit(inrush_command, sharded):
    for _ in range(3):
        done = inrush_command("load", sharded[0], "--explain", "--mapping", "never", "--json")
        document = answer(done)
        rate = document["limit"]["bytes_per_second"]
        assert not rate or document["stats"]["gb_per_s"] * 1e9 <= rate


def test_a_broken_manifest_is_wrong_data(inrush_command, sharded, tmp_path):
    for content in (b"", b"{}", b"\xff\xfe", b'{"schema_version": 99}'):
        broken = tmp_path / "broken.json"
        broken.write_bytes(content)
        error = failed(inrush_command("verify", sharded[0], "--manifest", broken), 1)
        assert "broken.json" in error


def test_a_truncated_file_is_wrong_data(inrush_command, sharded):
    shard = sharded[0] / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    for command in ("inspect", "load", "verify", "bench", "doctor"):
        assert shard.name in failed(inrush_command(command, sharded[0]), 1)


def in_terminal(arguments):
    """Run the command in a terminal; what it showed there, and its exit code."""
    parent, child_end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "inrush", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=child_end,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(child_end)
    shown = b""
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
    except OSError:  # the terminal went with the child
        pass
    os.close(parent)
    child.communicate()
    return shown.decode(), child.returncode


def test_progress_is_shown_in_a_terminal_only(sharded, inrush_command):
    shown, code = in_terminal(["verify", sharded[0]])
    assert code == 0
    assert "verifying" in shown
    assert inrush_command("verify", sharded[0]).stderr == ""


def test_ctrl_c_exits_with_130_within_a_second(tmp_path):
    # Digesting 1 GiB takes long enough.
    size = 1 << 30
    path = tmp_path / "big.safetensors"
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    command = [sys.executable, "-m", "inrush", "verify", str(path)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    while child.poll() is None and len(os.listdir(f"/proc/{child.pid}/task")) == 1:
        time.sleep(0.01)  # until lanes run
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    if child.returncode == 0:
        pytest.skip("the machine digested 1 GiB before it could be interrupted")
    assert time.monotonic() - begin < 10
    assert child.returncode == 130
    assert errors == "inrush: interrupted\n"


@pytest.mark.parametrize("words", ["inspect {} --all", "load {} --json", "doctor {}", "--help"])
def test_a_closed_pipe_leaves_the_exit_code_as_it_is(sharded, words):
    command = f"{sys.executable} -m inrush {words.format(sharded[0])} | true"
    command += "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_leaves_an_error_an_error(sharded, tmp_path, inrush_command):
    manifest = tmp_path / "m.json"
    assert inrush_command("manifest", sharded[0], "-o", manifest).returncode == 0
    values = json.loads(manifest.read_text())
    for tensor in values["tensors"].values():
        tensor["digest"] = "0" * 64
        tensor.pop("leaves", None)
    manifest.write_text(json.dumps(values))
    command = f"{sys.executable} -m inrush verify {sharded[0]} --manifest {manifest} | head -1"
    command += "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
