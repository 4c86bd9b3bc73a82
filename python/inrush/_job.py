"""A load that runs in the background, whoever looks."""

from __future__ import annotations

import sys
import threading
import time

from inrush import _core
from inrush._errors import Cancelled, Error
from inrush._frameworks import converter
from inrush._selection import load_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any

    from inrush._devices import TorchMemory
    from inrush._options import Options
    from inrush._trace import Trace

# Seconds between calls of a progress callback.
_PROGRESS_INTERVAL = 0.1

# Fallbacks that the debug log has been told of by this process.
_logged: set[tuple[str, str]] = set()

_STATS = (
    "choice",
    "why",
    "bytes",
    "bytes_read",
    "bytes_mapped",
    "bytes_copied",
    "reads",
    "retries",
    "hedges",
    "tensors",
    "seconds",
    "seconds_to_first",
    "consumer_wait",
    "budget_wait",
    "peak_staging",
    "peak_device_staging",
    "budget",
    "orphaned",
    "lanes",
    "depth",
    "fallbacks",
)


# Called once for each load that ends, with its statistics and complete, failed or cancelled; from
# wherever the last reference to one that nobody waited for goes, which may be in the middle of
# themselves.
observers: set[Callable[[dict[str, Any], str], None]] = set()

_SOURCE_STATS = ("uri", "bytes", "reads", "retries", "hedges", "given_up")


def _sources_of(stats: _core.LoadStats) -> list[dict[str, Any]]:
    """What each place of a load has given, with its rate."""
    found = [{key: getattr(source, key) for key in _SOURCE_STATS} for source in stats.sources]
    for source in found:
        source["gb_per_s"] = source["bytes"] / stats.seconds / 1e9 if stats.seconds > 0 else 0.0
    return found


def _needs_four(callback: Callable[..., object]) -> bool:
    """Whether a progress callback has a fourth parameter that must be given."""
    import inspect  # who reports no progress need not pay for it

    try:
        signature = inspect.signature(callback)
        signature.bind(0, 0, 0.0, [])
    except (TypeError, ValueError):
        return False
    try:
        signature.bind(0, 0, 0.0)
    except TypeError:
        return True
    return False


def _report_wrong(checkpoint: _core.Checkpoint) -> None:
    import logging

    try:
        checkpoint.confirm()
    except Error as error:
        logging.getLogger("inrush").error("%s: what was loaded of it is wrong", error)


class Job:
    """A load that has begun: wait for it, watch it, cancel it, iterate over it.

    Its reads go on in the background from the moment it is made. Every method may be called
    from any thread; several threads that iterate share the tensors between them. Made by
    `Checkpoint.start`. Leaving a ``with`` block cancels what still runs.

    Attributes
    ----------
    confirms : bool
        Whether its end waits for what `Checkpoint.confirm` waits for. False: what is found wrong
        later is logged, as an error.
    """

    def __init__(
        self,
        checkpoint: _core.Checkpoint,
        options: Options,
        *,
        collect: bool,
        keep: bool = False,
        digesting: Callable[[_core.LoadOptions], object] | None = None,
    ) -> None:
        self._memory: TorchMemory | None = None
        delivery, moved_to = None, None
        device = options.device if options.moved_to is None else options.moved_to
        if device is not None or options.out:
            from inrush._devices import delivery_of  # few need it, and importing it takes time

            delivery, moved_to = delivery_of(checkpoint, options, device)
        self._convert = converter(options.framework, moved_to)
        self._out = options.out
        self._progress = options.progress
        self._tells_sources = options.progress is not None and _needs_four(options.progress)
        asked = load_options(checkpoint, options, collect=collect, keep=keep)
        if delivery is not None:
            asked.budget = options.pinned_budget
            asked.device_budget = options.device_budget
            delivery.ask(asked)
            self._memory = delivery.memory
        if digesting is not None:
            digesting(asked)
        self._checkpoint = checkpoint
        if options.manifest is not None:
            from inrush._checks import expectation_of

            expectation_of(checkpoint, options).add_to(asked)
        if options.key is not None or options.verify != "none" or checkpoint.encrypted:
            from inrush._checks import checks_of  # few need it, and importing it takes time

            checks_of(checkpoint, options).add_to(asked)
        self._load = _core.Load(checkpoint, asked)
        self.confirms = False
        self._lock = threading.Lock()
        self._untold = {"told", "logged"}
        self._reported = 0.0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, tensor) of what has not been handed over yet, in the order asked for."""
        while (item := self._next_item()) is not None:
            yield item
            del item  # while it waits for the next one it keeps none alive

    def __len__(self) -> int:
        """How many tensors the load delivers in all."""
        return self._load.count

    def _next_item(self) -> tuple[str, Any] | None:
        tensor = self._next()
        if tensor is None:
            return None
        name = tensor.name
        if name in self._out:
            return name, self._out[name]
        if self._memory is not None:
            return name, self._memory.take(name)
        return name, tensor if self._convert is None else self._convert(tensor)

    def _next(self) -> _core.Tensor | None:
        # One consumer at a time: the engine hands tensors over to one thread.
        with self._lock:
            try:
                tensor = self._load.next() if self._progress is None else self._next_reporting()
            except Error as error:
                self._ended(error)
                raise
        if tensor is None:
            self._finish()
        return tensor

    def _next_reporting(self) -> _core.Tensor | None:
        while True:
            try:
                tensor = self._load.next(_PROGRESS_INTERVAL)
            except TimeoutError:
                self._report()
                continue
            self._report(last=tensor is None)
            return tensor

    def _report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._progress is None or (not last and now - self._reported < _PROGRESS_INTERVAL):
            return
        self._reported = now
        stats = self._load.stats()
        more = [_sources_of(stats)] if self._tells_sources else []
        self._progress(stats.bytes, self._load.nbytes, stats.seconds, *more)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every byte is in place.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits as long as it takes.

        Returns
        -------
        bool
            False if the timeout passed first.

        Raises
        ------
        Error
            What went wrong with the load; `Cancelled` after `cancel`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._progress is not None:
                left = _PROGRESS_INTERVAL if left is None else min(left, _PROGRESS_INTERVAL)
            try:
                done = self._load.wait(left)
            except Error as error:
                self._ended(error)
                raise
            self._report(last=done)
            if done:
                self._finish()
            if done or (deadline is not None and time.monotonic() >= deadline):
                return done

    def done(self) -> bool:
        """Whether nothing more will come: complete, failed or cancelled. Never waits."""
        try:
            return self._load.wait(0)
        except Error as error:
            self._ended(error)
            return True

    def cancel(self) -> None:
        """Stop reading; waits and iterations raise `Cancelled` from now on.

        What is complete already stays complete.
        """
        self._load.cancel()

    def stats(self) -> dict[str, Any]:
        """What the load has done so far.

        Returns
        -------
        dict
            ``choice`` and ``why``: the way it reads and one sentence of reason. In bytes:
            ``bytes`` (in place), ``bytes_read``, ``bytes_mapped``, ``bytes_copied`` (moved once
            more), ``peak_staging``, ``peak_device_staging``, ``budget``, ``orphaned`` (held by a
            stuck read). Counts: ``reads``, ``retries`` (requests repeated), ``hedges`` (second
            requests beside a silent one), ``tensors``, ``lanes``, ``depth`` (in flight per lane).
            In seconds: ``seconds``, ``seconds_to_first``, ``consumer_wait``, ``budget_wait``.
            ``gb_per_s``: 1e9 bytes in place per second. ``fallbacks``: why lanes were replaced
            in the middle of it, or places left out. ``sources``: for the checkpoint's own place and
            each mirror a dict of ``uri``, ``bytes`` and ``reads`` that came, ``retries``,
            ``hedges`` (of its own requests, and reads of what another place was too slow or silent
            with), ``given_up``, ``gb_per_s``.
        """
        stats = self._load.stats()
        values = {key: getattr(stats, key) for key in _STATS}
        values["sources"] = _sources_of(stats)
        values["gb_per_s"] = stats.bytes / stats.seconds / 1e9 if stats.seconds > 0 else 0.0
        return values

    def explain(self) -> dict[str, Any]:
        """The facts that were found and the choice that was made from them, as JSON values."""
        import json

        return {
            "facts": json.loads(self._load.facts_json()),
            "choice": json.loads(self._load.choice_json()),
        }

    def digests(self) -> dict[str, str]:
        """Digests in hex by tensor name, where they were asked for; complete after the last."""
        return self._load.digests()

    def trace(self) -> Trace:
        """What each lane did when; empty unless the load was started with ``trace=True``."""
        from inrush._trace import Trace

        return Trace(self._load.trace(), self.stats())

    def _is_first(self, event: str) -> bool:
        """Whether this was not asked of the event before; threads may see the end together."""
        try:
            self._untold.remove(event)
        except KeyError:
            return False
        return True

    def _ended(self, error: Error | None) -> None:
        if not self._is_first("told") or not observers:
            return
        cancelled = isinstance(error, Cancelled)
        outcome = "complete" if error is None else "cancelled" if cancelled else "failed"
        stats = self.stats()
        for observe in tuple(observers):
            observe(stats, outcome)

    def _confirm(self) -> None:
        # Digests that are not compared by now are, meanwhile; who has the tensors is told.
        try:
            compared = self._checkpoint.confirm(None if self.confirms else 0)
        except Error as error:
            self._ended(error)
            raise
        if not compared:
            threading.Thread(
                target=_report_wrong, args=(self._checkpoint,), name="inrush-digests", daemon=True
            ).start()

    def _finish(self) -> None:
        if "logged" not in self._untold:
            return
        self._confirm()
        if not self._is_first("logged"):
            return
        self._ended(None)
        # Who has not imported logging has set nothing up that would show these lines, and the
        # import is a third of the time that importing this package takes.
        logging = sys.modules.get("logging")
        if logging is None:
            return
        log = logging.getLogger("inrush")
        if log.isEnabledFor(logging.DEBUG):
            for what, why, instead in _core.fallbacks(None, self._checkpoint):
                if (what, why) not in _logged:  # one line each, not one a load
                    _logged.add((what, why))
                    log.debug("without %s: %s; instead: %s", what, why, instead)
            numa = self.explain()["facts"]["numa"]
            if numa and ("NUMA", numa["text"]) not in _logged:
                _logged.add(("NUMA", numa["text"]))
                log.debug("%s", numa["text"])
        stats = self.stats()
        for fallback in stats["fallbacks"]:
            log.debug("fell back: %s", fallback)
        log.info(
            "%d tensors, %.3f GB in %.3f s: %.2f GB/s via %s (%s)",
            stats["tensors"],
            stats["bytes"] / 1e9,
            stats["seconds"],
            stats["gb_per_s"],
            stats["choice"],
            stats["why"],
        )

    def __del__(self) -> None:
        # Whoever drops a load neither waited for its end nor left its `with`: it is counted as
        # what it is by now. Of one that could not be made there is nothing to count.
        if observers and "told" in getattr(self, "_untold", ()):
            if not self.done():
                self._ended(Cancelled("the load was dropped"))
            self._ended(None)

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.done():
            self.cancel()
            self._ended(Cancelled("the load was left early"))
        self._ended(None)
