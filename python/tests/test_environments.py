"""Loads where the kernel, the sandbox, the user's rights or the filesystem give less than usual.

Each runs in a process of its own, must deliver every byte, say nothing on standard error, and tell
each fallback once in the debug log and in `inrush doctor`.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from confinement import (
    CALLS,
    CannotMount,
    mounted,
    refuse,
    run_python,
)
from conftest import random_tensor, write_file
from far_filesystem import far

import inrush

ROOT = os.geteuid() == 0
needs_calls = pytest.mark.skipif(not CALLS, reason="no system call numbers for this machine")
needs_root = pytest.mark.skipif(not ROOT, reason="needs root, to become somebody else")

PROGRAM = """
import gc, hashlib, json, logging, os, resource, sys
import inrush, inrush._trace
sys.path.insert(0, os.environ["TESTS"])
import confinement
lines = []
class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
log = logging.getLogger("inrush")
log.setLevel(logging.DEBUG)
log.addHandler(Keep())
for step in json.loads(os.environ.get("STEPS", "[]")):
    if step == "memlock":
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    elif step == "one cpu":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    else:
        getattr(confinement, step)()
options = json.loads(os.environ.get("OPTIONS", "{}"))
for _ in range(2):
    tensors = inrush.open(sys.argv[1], **options).load()
digest = hashlib.sha256()
for name in sorted(tensors):
    digest.update(name.encode() + bytes(memoryview(tensors[name])))
doctor = [what for what, _, _ in inrush._core.fallbacks(None, inrush.open(sys.argv[1])._core)]
print(json.dumps({"digest": digest.hexdigest(), "lines": lines, "doctor": doctor}))
"""


def expected(contents):
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(name.encode() + contents[name][2])
    return digest.hexdigest()


def evict(folder):
    os.sync()
    for path in Path(folder).rglob("*.safetensors"):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def load(folder, contents, *, before=None, steps=(), options=None, **environment):
    """Load it cold, and again; the lines of the debug log about what was not to be had."""
    evict(folder)
    variables = {
        "TESTS": str(Path(__file__).parent),
        "STEPS": json.dumps(list(steps)),
        "OPTIONS": json.dumps(options or {}),
        "INRUSH_PROFILE": "off",
        **environment,
    }
    done = run_python(PROGRAM, folder, before=before, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["digest"] == expected(contents)
    without = [line for line in said["lines"] if line.startswith("without ")]
    assert len(without) == len(set(without))
    told = {line.removeprefix("without ").partition(":")[0] for line in without}
    assert told == set(said["doctor"])
    return told


@pytest.fixture
def public(sharded):
    """The checkpoint where anybody may read it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(sharded[0], Path(folder) / "model")
        yield Path(folder) / "model", sharded[1]


SANDBOXES = {
    "io_uring EPERM": (["io_uring_setup"], errno.EPERM, {"io_uring"}),
    "io_uring ENOSYS": (["io_uring_setup"], errno.ENOSYS, {"io_uring"}),
    "AIO EPERM": (["io_setup"], errno.EPERM, {"Linux AIO"}),
    "AIO ENOSYS": (["io_setup"], errno.ENOSYS, {"Linux AIO"}),
    "neither": (["io_uring_setup", "io_setup"], errno.EPERM, {"io_uring", "Linux AIO"}),
    "statx EPERM": (["statx"], errno.EPERM, set()),
    "statx ENOSYS": (["statx"], errno.ENOSYS, set()),
    "cachestat EPERM": (["cachestat"], errno.EPERM, {"residency by cachestat"}),
    "cachestat ENOSYS": (["cachestat"], errno.ENOSYS, {"residency by cachestat"}),
}


@needs_calls
@pytest.mark.parametrize("name", SANDBOXES)
def test_a_sandbox_that_denies_a_call_costs_a_line_and_no_byte(sharded, name):
    calls, error, told = SANDBOXES[name]
    folder, contents = sharded
    assert told <= load(folder, contents, before=refuse(dict.fromkeys(calls, error)))


@needs_calls
@pytest.mark.parametrize("backend", ["BUFFERED", "PREAD", None])
def test_without_io_uring_and_aio_each_policy_still_loads(sharded, backend):
    denied = refuse({"io_uring_setup": errno.EPERM, "io_setup": errno.ENOSYS})
    options = {"backend": backend} if backend else {"mapping": "never"}
    load(*sharded, before=denied, options=options)


@needs_calls
def test_a_kernel_as_old_as_4_18_loads(sharded):
    """All calls that came after rseq, which 4.18 brought, are unknown; so is populating."""
    told = load(*sharded, before=refuse({}, after="rseq", no_populate=True))
    assert {"io_uring", "populated mappings", "residency by cachestat"} <= told


@needs_root
def test_a_user_who_may_only_read_root_s_files_loads_them(public):
    folder, contents = public
    for path in folder.iterdir():
        path.chmod(0o444)
    assert "residency by cachestat" in load(folder, contents, steps=["become_nobody"])


@needs_root
def test_64_kib_of_locked_memory_are_enough(public):
    steps = ["memlock", "become_nobody"]
    load(*public, steps=steps)
    load(*public, steps=steps, options={"backend": "uring", "strict": True})


def test_one_core_is_enough(sharded):
    load(*sharded, steps=["one cpu"])


def can(step):
    """Whether a step of confinement works here; else why not."""
    program = "import confinement, sys; getattr(confinement, sys.argv[1])()"
    return run_python(program, step, PYTHONPATH=str(Path(__file__).parent)).stderr.strip()


@needs_root
def test_a_read_only_root_without_home_is_enough(sharded):
    refusal = can("read_only_root")
    if refusal:
        pytest.skip(refusal.splitlines()[-1])
    nowhere = {"HOME": None, "XDG_CACHE_HOME": None, "XDG_RUNTIME_DIR": None}
    told = load(*sharded, steps=["read_only_root"], INRUSH_PROFILE=None, **nowhere)
    assert {"the profile", "the registry of loads"} <= told


def test_without_home_nothing_is_kept_and_that_is_said(sharded):
    told = load(*sharded, INRUSH_PROFILE=None, HOME=None, XDG_CACHE_HOME=None)
    assert "the profile" in told


@needs_root
def test_a_profile_folder_that_may_not_be_written_is_no_error(public, tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        profile = str(Path(folder) / "sub" / "profile.json")
        told = load(*public, steps=["become_nobody"], INRUSH_PROFILE=profile)
        assert "the profile" in told
        assert os.listdir(folder) == []


@pytest.mark.parametrize("text", [b"", b"{", os.urandom(1000), b'{"schema_version":1,"rates":3}'])
def test_a_corrupt_profile_is_no_error(sharded, tmp_path, text):
    profile = tmp_path / "profile.json"
    profile.write_bytes(text)
    told = load(*sharded, INRUSH_PROFILE=str(profile))
    assert ("the profile" in told) == bool(text)


WRITER = """
import os, sys
os.environ["INRUSH_PROFILE"] = sys.argv[2]
import inrush
for _ in range(3):
    with open(sys.argv[1], "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    inrush.open(sys.argv[1], mapping="never").load()
"""


def test_eight_processes_write_one_profile(tmp_path):
    """Cold loads of 64 MiB and more teach; whatever they do to each other, the file stays one."""
    from conftest import random_tensor, write_file

    contents = {"t": random_tensor("U8", [65 << 20])}
    profile = tmp_path / "p" / "profile.json"
    # Of a file that others load too nothing is learnt.
    files = [write_file(tmp_path / f"{i}.safetensors", contents) for i in range(8)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), str(profile)], stderr=subprocess.PIPE
        )
        for file in files
    ]
    for process in running:
        assert process.communicate(timeout=120)[1] == b""
        assert process.returncode == 0
    for file in files:
        file.unlink()
    assert json.loads(profile.read_text())["schema_version"] == 1
    assert {path.name for path in profile.parent.iterdir()} <= {"profile.json", "profile.json.lock"}


def why_of_a_load(file, profile):
    done = subprocess.run(
        [sys.executable, "-m", "inrush", "load", str(file), "--json"],
        capture_output=True,
        env={**os.environ, "INRUSH_PROFILE": str(profile)},
        check=True,
    )
    return json.loads(done.stdout)["stats"]["why"]


def test_half_resident_files_teach_no_rate(tmp_path):
    """Part of their bytes came from memory: their rate is not the disk's."""
    from conftest import random_tensor, write_file

    half, cold = tmp_path / "half.json", tmp_path / "cold.json"
    file = write_file(tmp_path / "a.safetensors", {"t": random_tensor("U8", [80 << 20])})
    with open(file, "rb") as opened:
        descriptor = opened.fileno()
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for offset in range(0, 80 << 20, 2 << 20):
            os.pread(descriptor, 1 << 20, offset)
        if "partly warm" not in why_of_a_load(file, half):
            pytest.skip("what is resident cannot be told here")
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        why_of_a_load(file, cold)
    assert cold.exists()
    assert not half.exists()


@needs_root
@pytest.mark.parametrize("kind", ["overlay", "squashfs", "xfs", "btrfs"])
def test_it_loads_from(kind, public, tmp_path):
    folder, contents = public
    try:
        with mounted(kind, folder, folder.parent) as place:  # where anybody may pass
            load(place, contents)
            load(place, contents, options={"mapping": "never"})
            load(place, contents, steps=["become_nobody"])
    except CannotMount as reason:
        pytest.skip(str(reason))


@needs_root
@pytest.mark.parametrize("kind", ["xfs", "btrfs", "overlay"])
def test_it_saves_on(kind, public, tmp_path):
    """A file that goes directly where it can; overlays of two layers are read-only, so refuse."""
    from inrush.numpy import save_file

    numpy = pytest.importorskip("numpy")
    data = {"t": numpy.frombuffer(os.urandom(10 << 20), dtype=numpy.uint8)}
    save_file(data, tmp_path / "expected")
    try:
        with mounted(kind, public[0], tmp_path) as place:
            if kind == "overlay":
                with pytest.raises(Exception, match="Read-only"):
                    save_file(data, place / "saved")
                return
            save_file(data, place / "saved")
            assert (place / "saved").read_bytes() == (tmp_path / "expected").read_bytes()
    except CannotMount as reason:
        pytest.skip(str(reason))


def test_it_loads_from_a_filesystem_in_user_space(sharded, tmp_path):
    with far(sharded[0], tmp_path) as place:
        load(place, sharded[1])


@pytest.mark.parametrize("warm", [False, True])
def test_a_small_far_shard_is_opened_once(tmp_path, warm):
    folder = tmp_path / "model"
    folder.mkdir()
    contents = {f"t{i}": random_tensor("U8", [100_000]) for i in range(20)}
    for name, tensor in contents.items():
        write_file(folder / f"{name}.safetensors", {name: tensor})
    log = tmp_path / "opens"
    with far(folder, tmp_path, log=log) as place:
        for path in place.iterdir() if warm else ():
            path.read_bytes()
        log.write_text("")
        for name, tensor in inrush.open(place).load().items():
            assert bytes(memoryview(tensor)) == contents[name][2]
    assert sorted(log.read_text().split()) == sorted(path.name for path in folder.iterdir())


def test_a_hub_snapshot_of_links_loads_as_its_files(sharded, tmp_path):
    folder, contents = sharded
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123456789abcdef"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        blob = blobs / hashlib.sha256(path.name.encode()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    load(snapshot, contents)


CGROUPS = {"v1": Path("/sys/fs/cgroup/memory"), "v2": Path("/sys/fs/cgroup")}


@pytest.mark.parametrize("version", CGROUPS)
def test_a_memory_limit_of_tensors_and_little_more_is_enough(version, tmp_path):
    """40 MiB of tensors in 150 MiB, of which the interpreter takes up some 40."""
    from conftest import random_tensor, write_file

    parent = CGROUPS[version]
    knob = parent / ("memory.limit_in_bytes" if version == "v1" else "memory.max")
    if version == "v2" and not (parent / "cgroup.controllers").exists():
        pytest.skip("no cgroup v2 hierarchy with controllers at /sys/fs/cgroup")
    group = parent / f"inrush-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / knob.name).write_text(str(150 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        contents = {str(i): random_tensor("U8", [10 << 20]) for i in range(4)}
        folder = tmp_path / "m"
        folder.mkdir()
        write_file(folder / "model.safetensors", contents)

        def join():
            (group / "cgroup.procs").write_text(str(os.getpid()))

        load(folder, contents, before=join)
        load(folder, contents, before=join, options={"mapping": "never"})
        write_file(folder / "model.safetensors", {"big": random_tensor("U8", [160 << 20])})
        program = "import inrush, sys; inrush.open(sys.argv[1], mapping='never').load()"
        refused = run_python(program, folder, before=join)
        assert refused.returncode == 1
        assert "MemoryBudgetError: load" in refused.stderr
        assert "the limit of the cgroup is 157286400" in refused.stderr
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.02)


@needs_calls
def test_doctor_shows_what_is_not_to_be_had(sharded):
    program = "import inrush.cli, sys; sys.argv = ['inrush', 'doctor', *sys.argv[1:]]; " + (
        "inrush.cli.main()"
    )
    denied = refuse({"io_uring_setup": errno.EPERM, "cachestat": errno.ENOSYS})
    shown = run_python(program, sharded[0], before=denied).stdout
    assert "not to be had here" in shown
    assert "residency by cachestat" in shown
    report = json.loads(run_python(program, sharded[0], "--json", before=denied).stdout)
    told = {row["what"]: row for row in report["fallbacks"]}
    assert told["io_uring"]["instead"] == "Linux AIO"
    assert "not permitted" in told["io_uring"]["why"]
    assert told["residency by cachestat"]["instead"]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("{", "rm "),
        ('{"schema_version": 99, "rates": {}}', "another version"),
        ('{"schema_version": 1, "rates": {}}', ""),
        (None, ""),
    ],
)
def test_doctor_says_what_to_do_about_a_profile(tmp_path, text, remedy):
    profile = tmp_path / "profile.json"
    if text is not None:
        profile.write_text(text)
    environment = {**os.environ, "INRUSH_PROFILE": str(profile)}
    done = subprocess.run(
        [sys.executable, "-m", "inrush", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    advice = [one for one in json.loads(done.stdout)["advice"] if "profile" in one]
    assert len(advice) == bool(remedy), advice
    assert all(remedy in one for one in advice)
    assert text is None or profile.read_text() == text
