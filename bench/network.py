"""Checkpoints from servers of this machine: beside the raw loops over the same servers, and peers.

Every run is a fresh process with no profile. CPU seconds are the client's own and its children's
(tensorizer has a curl fetch for it), memory is what it took beyond the tensors. ``--only NAME``
runs one of the cells.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.fixtures import BUILD, GIB, MIB
from bench.places import open_filesystem
from bench.programs import program
from bench.session import Session
from bench.web import KEY, SECRET, certificate, nginx, paced, rclone

Run = dict[str, float]
Runs = dict[str, list[Run]]

_CONNECTIONS = 2  # of the loops: what two processors keep busy

# Each gets its place, options as JSON and a folder; `work` is what is timed.
_FRAME = """
import json, os, resource, sys, time
place, words = sys.argv[1], json.loads(sys.argv[2])
{imports}
def status(word):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(word))
def cpu_seconds():
    both = [resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)
before = cpu_seconds()
resting = status("VmRSS")
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
said = {{"seconds": seconds, "cpu": cpu_seconds() - before, "memory": status("VmHWM") - resting}}
{more}
print(json.dumps(said))
"""


def _program(imports: str, work: str, more: str = "") -> str:
    return _FRAME.format(imports=imports, work=work, more=more)


_OURS = _program(
    "import inrush",
    "with inrush.open(place, **words).start() as job:\n    tensors = dict(iter(job))",
    'stats = job.stats()\nsaid["retries"] = stats["retries"]\nsaid["hedges"] = stats["hedges"]\n'
    'said["depth"] = stats["depth"] * stats["lanes"]\nsaid["came"] = stats["bytes_read"]',
)
# Until the copy is on disk, which is what writing alone waits for too.
_FILLING = _program(
    "import inrush",
    "with inrush.open(place, **words).start() as job:\n    tensors = dict(iter(job))\ndel job",
)
_DESERIALIZE = (
    'file = kit.TensorDeserializer(place, device="cpu", **words)\n'
    "tensors = dict(file)\n"
    "file.close()"  # only then are the CPU seconds of its children known
)
_OUR_TENSORIZER = _program("import inrush.tensorizer as kit", _DESERIALIZE)
_TENSORIZER = _program(
    "import warnings\nwarnings.simplefilter('ignore')\nimport tensorizer as kit", _DESERIALIZE
)
_RUNAI = _program(
    "os.environ['RUNAI_STREAMER_LOG_LEVEL'] = 'ERROR'\n"
    "from runai_model_streamer import SafetensorsStreamer",
    "with SafetensorsStreamer() as streamer:\n"
    "    streamer.stream_files([place])\n"
    "    tensors = {name: tensor.clone() for name, tensor in streamer.get_tensors()}",
)


def _measure(command: list[str], **variables: str) -> Run:
    environment = {**os.environ, "INRUSH_PROFILE": "off", **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-400:]}")
    found: Run = json.loads(done.stdout)
    return found


def _python(code: str, place: str, **words: Any) -> list[str]:
    return [sys.executable, "-c", code, place, json.dumps(words)]


def _curl(url: str, size: int, *more: str) -> list[str]:
    return [str(program("curl_loop")), url, str(size), str(_CONNECTIONS), *more]


def _alternate(rounds: int, entrants: dict[str, Callable[[], Run]]) -> Runs:
    """Every entrant in every round, in an order drawn anew; who fails is left out."""
    runs: Runs = {name: [] for name in entrants}
    names = list(entrants)
    for i in range(rounds):
        for name in random.Random(i).sample(names, len(names)):
            try:
                runs[name].append(entrants[name]())
            except (RuntimeError, ValueError, OSError) as error:
                print(f"  {name}: {error}", file=sys.stderr)
                names.remove(name)
    return {name: found for name, found in runs.items() if found}


def _median(runs: Runs, name: str) -> float:
    return statistics.median(run["seconds"] for run in runs[name])


def _report(session: Session, cell: str, size: int, runs: Runs, **ratios: float) -> None:
    """Prints and keeps rates, CPU seconds a GB and memory, and the ratios that goals are of."""
    table = {}
    for name, found in runs.items():
        row: dict[str, Any] = {
            "gb_per_s": [round(size / run["seconds"] / 1e9, 4) for run in found],
            "cpu_s_per_gb": round(statistics.median(r["cpu"] for r in found) / size * 1e9, 4),
        }
        if "memory" in found[0]:
            row["mib_beyond"] = round((max(run["memory"] for run in found) - size) / MIB)
        table[name] = row
        rate = statistics.median(row["gb_per_s"])
        beyond = f", {row['mib_beyond']} MiB beyond the tensors" if "mib_beyond" in row else ""
        print(
            f"{cell}: {name} {rate:.3f} GB/s, {row['cpu_s_per_gb']:.2f} CPU s/GB{beyond}",
            file=sys.stderr,
        )
    for name, ratio in ratios.items():
        print(f"{cell}: {name.replace('_', ' ')} {ratio:.3f}", file=sys.stderr, flush=True)
    session.results.note(f"network {cell}", {"bytes": size, "runs": table, **ratios})


def _of(runs: Runs, ours: str, other: str) -> float:
    """Our rate as a part of the other's; 0 where either did not run."""
    if ours not in runs or other not in runs:
        return 0.0
    return _median(runs, other) / _median(runs, ours)


def http(session: Session) -> None:
    with (
        open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,),
        nginx(place.folder.resolve()) as url,
    ):
        file = place.files[0]
        size = file.stat().st_size
        target = f"{url}/{file.name}"
        port = url.rpartition(":")[2]
        raw = [str(program("recv_loop")), port, f"/{file.name}", str(size), str(_CONNECTIONS)]
        runs = _alternate(
            session.bench.rounds,
            {
                "inrush": lambda: _measure(_python(_OURS, target)),
                "libcurl loop": lambda: _measure(_curl(target, size)),
                "recv loop": lambda: _measure(raw),
            },
        )
    _report(
        session, "http", size, runs,
        of_the_libcurl_loop=_of(runs, "inrush", "libcurl loop"),
        of_the_recv_loop=_of(runs, "inrush", "recv loop"),
    )  # fmt: skip


def tls(session: Session) -> None:
    with (
        open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,),
        nginx(place.folder.resolve(), tls=True) as url,
    ):
        file = place.files[0]
        size = file.stat().st_size
        target = f"{url}/{file.name}"
        roots = str(certificate((BUILD / "nginx").resolve()))
        words = {"storage_options": {"ca_file": roots}}
        runs = _alternate(
            session.bench.rounds,
            {
                "inrush": lambda: _measure(_python(_OURS, target, **words)),
                "libcurl loop": lambda: _measure(_curl(target, size, roots)),
            },
        )
    _report(session, "tls", size, runs, of_the_libcurl_loop=_of(runs, "inrush", "libcurl loop"))


def _presigned(endpoint: str, bucket: str, key: str) -> str:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
    return url


def s3(session: Session) -> None:
    with (
        open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,),
        rclone(place.folder.resolve().parent) as endpoint,
    ):
        file = place.files[0]
        size = file.stat().st_size
        bucket = place.folder.name
        uri = f"s3://{bucket}/{file.name}"
        words = {"storage_options": {"endpoint": endpoint, "key": KEY, "secret": SECRET}}
        keys = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
        }
        url = _presigned(endpoint, bucket, file.name)
        runs = _alternate(
            session.bench.rounds,
            {
                "inrush": lambda: _measure(_python(_OURS, uri, **words)),
                "libcurl loop": lambda: _measure(_curl(url, size)),
                "runai": lambda: _measure(_python(_RUNAI, uri), **keys),
            },
        )
    _report(
        session, "s3", size, runs,
        of_the_libcurl_loop=_of(runs, "inrush", "libcurl loop"),
        times_runai=_of(runs, "inrush", "runai"),
    )  # fmt: skip


def far(session: Session) -> None:
    """1 Gbit/s at 100 ms, paced: the figure does not depend on this machine."""
    link = 125e6
    with (
        open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,),
        paced(place.folder.resolve(), rate=link, latency=0.1) as server,
    ):
        file = place.files[0]
        size = file.stat().st_size
        target = f"{server.url}/{file.name}"
        runs = _alternate(
            min(session.bench.rounds, 3), {"inrush": lambda: _measure(_python(_OURS, target))}
        )
    rate = size / _median(runs, "inrush")
    _report(session, "far", size, runs, of_the_link=rate / link)


def mirrors(session: Session) -> None:
    """Two places of paced rates: alike, at 1:3, and one that dies half-way."""
    slow, fast = 50e6, 150e6
    with open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,):
        folder = place.folder.resolve()
        file = place.files[0]
        size = file.stat().st_size

        def timed(*servers: dict[str, Any]) -> Run:
            opened = [paced(folder, **words) for words in servers]
            ready = [one.__enter__() for one in opened]
            try:
                urls = [f"{one.url}/{file.name}" for one in ready]
                return _measure(_python(_OURS, urls[0], mirrors=urls[1:]))
            finally:
                for one in opened:
                    one.__exit__(None, None, None)

        alone = timed({"rate": slow})
        alike = timed({"rate": slow}, {"rate": slow})
        uneven = timed({"rate": slow}, {"rate": fast})
        runs = {"one": [alone], "two alike": [alike], "1:3": [uneven]}
        ratios = {
            "alike_times_one": alone["seconds"] / alike["seconds"],
            "uneven_of_the_sum": size / uneven["seconds"] / (slow + fast),
        }
        for how in ("reset", "stall"):
            share = size // 4  # half of what it would have given
            run = timed({"rate": slow}, {"rate": slow, "dies_after": share, "how": how})
            ideal = share / slow + (size - 2 * share) / slow
            runs[f"dies by {how}"] = [run]
            ratios[f"{how}_times_ideal"] = run["seconds"] / ideal
            ratios[f"{how}_seconds_beyond"] = run["seconds"] - 1.1 * ideal
            ratios[f"{how}_mib_that_came_twice"] = max(run["came"] - size, 0) / MIB
    _report(session, "mirrors", size, runs, **ratios)


def _write_alone(source: Path, target: Path) -> Run:
    """The same bytes to the same disk, as programs write: through the page cache."""
    begin = time.perf_counter()
    cpu = time.process_time()
    with open(source, "rb") as file, open(target, "wb") as out:
        while os.sendfile(out.fileno(), file.fileno(), None, 8 * MIB):
            pass
        os.fdatasync(out.fileno())
    run = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    target.unlink()
    return run


def cache(session: Session) -> None:
    """What filling the cache costs against loading alone and writing alone; the load after it."""
    folder = (BUILD / "cache").resolve()
    with (
        open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,),
        nginx(place.folder.resolve()) as url,
    ):
        file = place.files[0]
        size = file.stat().st_size
        target = f"{url}/{file.name}"

        def filling(**words: str) -> Run:
            shutil.rmtree(folder, ignore_errors=True)
            os.sync()  # what was removed is not this run's work
            return _measure(_python(_FILLING, target, cache_dir=str(folder), **words))

        def writing() -> Run:
            folder.mkdir(parents=True, exist_ok=True)
            os.sync()
            return _write_alone(file, folder / "alone")

        runs = _alternate(
            session.bench.rounds,
            {
                "load alone": lambda: _measure(_python(_OURS, target)),
                "write alone": writing,
                "filling": filling,
                "filling, pages kept": lambda: filling(page_cache="keep"),
            },
        )
        filling(page_cache="keep")
        runs |= _alternate(
            session.bench.rounds,
            {"from the cache": lambda: _measure(_python(_OURS, target, cache_dir=str(folder)))},
        )
    shutil.rmtree(folder, ignore_errors=True)
    dearer = max(_median(runs, "load alone"), _median(runs, "write alone"))
    _report(
        session, "cache", size, runs, filling_times_the_dearer=_median(runs, "filling") / dearer
    )


def tensors(session: Session) -> None:
    """A file of tensorizer's over HTTP."""
    with open_filesystem("tmpfs", [session.fixture("llama", GIB, 1)]) as (place,):
        folder = place.folder.resolve()
        file = folder / "plain.tensors"
        if not file.exists():
            convert = "import sys, inrush; inrush.convert(*sys.argv[1:3], to='tensorizer')"
            command = [sys.executable, "-c", convert, str(place.files[0]), str(file)]
            subprocess.run(command, check=True)
        size = file.stat().st_size
        with nginx(folder) as url:
            target = f"{url}/{file.name}"
            runs = _alternate(
                session.bench.rounds,
                {
                    "inrush": lambda: _measure(_python(_OURS, target)),
                    "inrush.tensorizer": lambda: _measure(_python(_OUR_TENSORIZER, target)),
                    "tensorizer": lambda: _measure(_python(_TENSORIZER, target)),
                },
            )
        file.unlink()
    _report(
        session, "tensors", size, runs,
        times_tensorizer=_of(runs, "inrush", "tensorizer"),
        substitute_times_tensorizer=_of(runs, "inrush.tensorizer", "tensorizer"),
    )  # fmt: skip


CELLS: dict[str, Callable[[Session], None]] = {
    "http": http,
    "tls": tls,
    "s3": s3,
    "far": far,
    "mirrors": mirrors,
    "cache": cache,
    "tensors": tensors,
}


def network(session: Session) -> None:
    for name, cell in CELLS.items():
        if session.only in name:
            cell(session)
