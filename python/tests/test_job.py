"""A load in the background: waiting, watching, cancelling, from any thread, and Ctrl-C."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import heed_ctrl_c, random_tensor, write_file
from inrush._job import Job

import inrush

STATS = {
    "choice", "why", "bytes", "bytes_read", "bytes_mapped", "bytes_copied", "reads", "retries",
    "tensors", "seconds", "seconds_to_first", "consumer_wait", "budget_wait", "peak_staging",
    "budget", "orphaned", "lanes", "depth", "fallbacks", "gb_per_s", "sources", "hedges",
    "peak_device_staging",
}  # fmt: skip


def test_begins_at_once_and_is_read_later(sharded):
    folder, contents = sharded
    with inrush.open(folder).start() as job:
        deadline = time.monotonic() + 30
        while not job.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert job.done()
        assert len(job) == len(contents)
        loaded = dict(iter(job))
    assert {name: bytes(memoryview(t).cast("B")) for name, t in loaded.items()} == {
        name: data for name, (_, _, data) in contents.items()
    }


@pytest.mark.parametrize("what", ["list(job)", "job.wait()", "[*iter(job)]", "job.cancel()"])
def test_a_daemon_thread_in_a_load_at_exit_aborts_nothing(sharded, what):
    program = (
        "import inrush, sys, threading\n"
        "def work():\n"
        "    while True:\n"
        "        job = checkpoint.start(mapping='never')\n"
        f"        {what}\n"
        "checkpoint = inrush.open(sys.argv[1])\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "import time; time.sleep(0.2)\n"
    )
    command = [sys.executable, "-c", program, str(sharded[0])]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_wait_says_whether_it_is_complete(sharded):
    folder, _ = sharded
    job = inrush.open(folder).start()
    assert job.wait() is True
    assert job.wait(0) is True
    assert job.wait(timeout=30) is True


def test_stats_have_the_documented_keys(sharded):
    folder, contents = sharded
    job = inrush.open(folder, mapping="never").start()
    job.wait()
    stats = job.stats()
    size = sum(len(data) for _, _, data in contents.values())
    assert set(stats) == STATS
    assert stats["bytes"] == stats["bytes_read"] == size
    assert stats["seconds"] > 0
    assert stats["gb_per_s"] == pytest.approx(stats["bytes"] / stats["seconds"] / 1e9)
    assert stats["why"]
    assert all(key in inrush.Job.stats.__doc__ for key in STATS)


def test_explain_has_facts_and_choice(sharded):
    folder, _ = sharded
    explained = inrush.open(folder).start().explain()
    assert explained["facts"]["filesystem"]["type"]
    assert explained["facts"]["machine"]["cpus"] >= 1
    assert explained["choice"]["why"]
    assert isinstance(explained["choice"]["lanes"], list)


def test_several_threads_share_the_tensors(sharded):
    folder, contents = sharded
    job = inrush.open(folder).start()
    seen: list[tuple[str, bytes]] = []

    def take():
        for name, tensor in job:
            seen.append((name, bytes(memoryview(tensor).cast("B"))))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == len(contents)
    assert dict(seen) == {name: data for name, (_, _, data) in contents.items()}


def test_other_threads_run_while_one_waits(sharded):
    folder, _ = sharded
    stream = iter(inrush.open(folder).tensors(budget="4MiB", mapping="never"))
    next(stream)
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(1)
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    for _ in stream:
        pass
    stop.set()
    thread.join()
    assert ticks


@pytest.fixture
def endless(sharded):
    """A job that cannot complete: nobody takes its tensors, and the budget does not hold them."""
    checkpoint = inrush.open(sharded[0], budget="4MiB", mapping="never")
    return Job(checkpoint._core, checkpoint._options, collect=False)


def test_wait_gives_up_at_its_timeout(endless):
    begin = time.monotonic()
    assert endless.wait(0.2) is False
    assert 0.2 <= time.monotonic() - begin < 10
    assert not endless.done()


def test_cancelled_job_raises_from_then_on(endless):
    endless.cancel()
    with pytest.raises(inrush.Cancelled) as caught:
        endless.wait()
    assert caught.value.code == 130
    with pytest.raises(inrush.Cancelled):
        list(endless)
    assert endless.done()


def test_cancel_from_another_thread_ends_a_wait(endless):
    begin = time.monotonic()
    threading.Timer(0.1, endless.cancel).start()
    with pytest.raises(inrush.Cancelled):
        endless.wait()
    assert time.monotonic() - begin < 10


def test_a_complete_job_stays_complete(sharded):
    folder, contents = sharded
    job = inrush.open(folder).start()
    job.wait()
    job.cancel()
    assert job.wait()
    assert len(dict(iter(job))) == len(contents)


def test_leaving_the_block_cancels(endless):
    with endless:
        next(iter(endless))
    with pytest.raises(inrush.Cancelled):
        endless.wait()


def test_dropping_a_running_job_is_quick(tmp_path):
    size = 64 << 20
    path = write_file(tmp_path / "x.safetensors", {"x": ("U8", [size], os.urandom(size))})
    job = inrush.open(path, mapping="never").start()
    begin = time.monotonic()
    del job
    assert time.monotonic() - begin < 10


def test_progress_is_told_by_the_waiting_thread(sharded):
    folder, contents = sharded
    calls = []
    threads = set()

    def progress(done, total, seconds):
        calls.append((done, total, seconds))
        threads.add(threading.get_ident())

    checkpoint = inrush.open(folder, progress=progress)
    checkpoint.load()
    size = sum(len(data) for _, _, data in contents.values())
    assert calls[-1][:2] == (size, size)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    checkpoint.start().wait()
    assert threads == {threading.get_ident()}


def test_an_error_of_a_progress_callback_comes_through(sharded):
    folder, _ = sharded

    def progress(*_):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        inrush.open(folder, progress=progress).load()


def test_one_line_is_logged(sharded, caplog):
    folder, contents = sharded
    with caplog.at_level(logging.INFO, logger="inrush"):
        inrush.open(folder).load()
    lines = [record.getMessage() for record in caplog.records if record.name == "inrush"]
    assert len(lines) == 1
    assert f"{len(contents)} tensors" in lines[0]
    assert "GB/s" in lines[0]


INTERRUPTED = """
import sys, inrush
from inrush._job import Job
checkpoint = inrush.open(sys.argv[1], budget="4MiB", mapping="never")
job = Job(checkpoint._core, checkpoint._options, collect=False)
stream = iter(job)
print("ready", flush=True)
{wait}
"""


@pytest.mark.parametrize("wait", ["job.wait()", "next(stream); job.wait(1000)"])
def test_ctrl_c_ends_a_wait(sharded, wait):
    command = [sys.executable, "-c", INTERRUPTED.format(wait=wait), str(sharded[0])]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert errors.strip().endswith("KeyboardInterrupt")
    assert child.returncode == -signal.SIGINT


def test_a_job_of_a_closed_interpreter_does_not_hang(sharded):
    folder, _ = sharded
    code = (
        "import inrush, sys\n"
        f"job = inrush.open({str(folder)!r}, mapping='never').start()\n"
        "stream = iter(job)\n"
        "kept = next(stream)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_zero_tensors_is_a_complete_job(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"empty": random_tensor("F32", [0])})
    job = inrush.open(path).start()
    assert job.wait()
    assert [name for name, _ in job] == ["empty"]
    assert job.stats()["bytes"] == 0
