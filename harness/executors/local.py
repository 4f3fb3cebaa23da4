"""One process, one cell after the other; a row in one pass where that is exact."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby

import torch

from harness import catalog, machine
from harness.cell import Cell, Result, Status
from harness.corpora import label_of, place_of, reading
from harness.engine.evaluate import BLOCK
from harness.engine.offload import memory
from harness.engine.parallel import ALONE, Alone, out_of_memory
from harness.executors.holding import filling
from harness.executors.work import CellFile, units
from harness.model import Live, load
from harness.plan import Options, Planned, Watch
from harness.plugins import blamed
from harness.probe import checked, reads_alike
from harness.reader import TokenReader
from harness.run import Finished, refused, run
from harness.store import Store

BLOCKS = (BLOCK, BLOCK // 4, BLOCK // 16)
"""Of tokens that pass a layer together, as they are tried where memory does not suffice."""
LARGE = 4 * BLOCK
"""The first to be tried where a GPU's keys lie in host memory: each block reads all before it."""
ONE_BY_ONE = ", its inputs one by one"
IN_HOST = ", with hidden states and keys in host memory"


def execute(
    plan: Sequence[Planned],
    store: Store,
    options: Options,
    watch: Watch,
    host: "Host | None" = None,
) -> Iterator[Result]:
    """Run these cells, and yield each result once it is stored.

    What another run on the same folder finishes meanwhile is not run again; of two such runs the
    second begins at the other end.
    """
    with filling(store, watch, "this one begins at the other end, and ") as alone:
        if not alone:
            plan = [planned for unit in reversed(units(plan)) for planned in unit]
        yield from fill(plan, store, options, watch, host)


def fill(
    plan: Sequence[Planned],
    store: Store,
    options: Options,
    watch: Watch,
    host: "Host | None" = None,
) -> Iterator[Result]:
    """Run these cells as they are given, beside whoever else does; yield each once stored."""
    for finished in (host or Host(options, watch)).measure(plan, store.has):
        store.write(finished.result, losses=finished.losses, samples=finished.samples)
        if finished.parts:
            finished.parts.drop()
        watch.cell_finished(finished.result)
        yield finished.result


def perform(
    work: CellFile, store: Store, watch: Watch, trust_remote_code: bool
) -> Iterator[Result]:
    """Run those cells of a pass here that have no result yet."""
    left = [planned for planned in work.plan() if not store.has(planned.cell)]
    if left:
        store.ready()
        yield from fill(left, store, work.options(trust_remote_code), watch)


class Host:
    """A process that measures: the model it has read stays until another is asked for."""

    def __init__(self, options: Options, watch: Watch, ranks: Alone = ALONE) -> None:
        self.options, self.ranks, self._watch = options, ranks, watch
        machine.commit()  # what runs from now on, whatever is committed meanwhile
        self._name: str | None = None
        self._held: tuple[Live, TokenReader] | None = None
        self._fault: tuple[Status, str] | None = None
        """Why the model cannot be asked; said of each of its cells without trying again."""

    def measure(
        self, plan: Iterable[Planned], done: Callable[[Cell], bool] = lambda cell: False
    ) -> Iterator[Finished]:
        """What comes of these cells, whatever goes wrong; but for those done when their turn is."""
        for name, of_model in groupby(plan, lambda p: p.cell.model):
            for _, of_row in groupby(of_model, lambda p: (p.cell.method, p.cell.task)):
                row = [planned for planned in of_row if not done(planned.cell)]
                if row:
                    yield from self._measure(name, row, done)

    def _measure(
        self, name: str, row: list[Planned], done: Callable[[Cell], bool]
    ) -> Iterator[Finished]:
        self._hold(name, row[0])
        if self._fault:
            yield from (refused(planned.cell, *self._fault) for planned in row)
            return
        live, reader = self._held
        try:
            with self.ranks.in_step():
                _check_text(row[0].cell.task, row[0].corpus)
                together = list(passes(live, row))
        except Exception as error:  # such as of a corpus that is not on this machine
            yield from (refused(planned.cell, *_fault(error)) for planned in row)
            return
        for one_pass in together:
            if left := [planned for planned in one_pass if not done(planned.cell)]:
                yield from self._attempt(live, reader, left)

    def _hold(self, name: str, planned: Planned) -> None:
        """Have this model ready, or know why it cannot be."""
        if name == self._name:
            return
        self._name, self._held, self._fault = name, None, None
        machine.let_go()
        try:
            with self.ranks.in_step():
                live = _loaded(planned, self.options)
            self._held = live, TokenReader(live.tokenizer, machine.cache_folder())
        except Exception as error:  # one model's fault, whatever it is, must not end the grid
            self._fault = _fault(error)

    def _attempt(
        self, live: Live, reader: TokenReader, planned: list[Planned]
    ) -> Iterator[Finished]:
        """The pass; out of memory, again by the next step; then cell by cell, then each input.

        What does not fit even then says so.
        """
        cells = [p.cell for p in planned]
        longest = planned[-1]  # whose bytes may be those of the row
        needed = longest.alone if len(planned) == 1 and longest.alone else longest.bytes
        tries = steps(live.device, self.options, needed)
        if not tries and len(planned) > 1:  # the longest is too long, and others may not be
            for one in planned:
                yield from self._attempt(live, reader, [one])
            return
        ways = [(*each, False) for each in tries]
        several = len(cells) == 1 and planned[0].tokens > cells[0].length
        if several and (tries or self._fits_alone(live, reader, planned[0])):
            ways.append((*(tries or [(BLOCKS[-1], False)])[-1], True))
        if not ways:
            here = _memory(live.device, self.options)
            sizes = f"{needed / 2**30:.1f} GiB, and there are {here / 2**30:.1f}"
            yield refused(cells[0], "out_of_memory", f"it needs {sizes}")
            return
        for block, offload, apart in ways:
            how = f"in blocks of {block} tokens{IN_HOST if offload else ''}"
            how += ONE_BY_ONE if apart else ""
            if (block, offload, apart) != ways[0]:
                self._watch.note(f"Out of memory at {_named(cells)}: trying again {how}.")
            self._watch.cell_started(cells, max(p.tokens for p in planned))
            try:
                yield from run(
                    live,
                    reader,
                    cells,
                    corpus=planned[0].corpus,
                    block=block,
                    memory=memory(live.model, offload=offload, limit=self.options.memory),
                    ranks=self.ranks,
                    apart=apart,
                    step=self._watch.progressed,
                )
                return
            except Exception as error:  # one cell's fault, whatever it is, must not end the grid
                said = _first_line(error)
                if not out_of_memory(error):
                    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
                    reason = blamed(error) or reason
                    yield from (refused(cell, "failed", reason) for cell in cells)
                    _see_that_it_answers(live.device)
                    return
        if len(planned) > 1:
            for one in planned:
                yield from self._attempt(live, reader, [one])
        else:
            yield refused(cells[0], "out_of_memory", f"out of memory, {how}: {said}")

    def _fits_alone(self, live: Live, reader: TokenReader, planned: Planned) -> bool:
        """Whether each input of a cell by itself is expected to find room, where all do not."""
        from harness.cost import Work, shape_of

        cell, shape = planned.cell, shape_of(live.card).shared(self.options.shards)
        task = reading(catalog.load("tasks", cell.task), planned.corpus)
        number = live.model.dtype.itemsize
        keys = catalog.load("methods", cell.method).keys(live.model, cell.length)
        most = max(
            Work.of([request], follows=task.follows).bytes(shape, number, keys=keys)
            for request in task.requests(reader, cell.length)
        )
        return most <= _memory(live.device, self.options)


def passes(live: Live, plan: Iterable[Planned]) -> Iterator[list[Planned]]:
    """Cells that one pass fills together: a row whose lengths are read and encoded alike."""
    for (spec, task), row in groupby(plan, lambda p: (p.cell.method, p.cell.task)):
        cells = list(row)
        method = catalog.load("methods", spec)
        lengths = [p.cell.length for p in cells]
        together = (
            catalog.load("tasks", task).one_pass
            and method.unfit(live.model, max(lengths)) is None
            and reads_alike(live.model, method, lengths)
        )
        yield from [cells] if together else ([cell] for cell in cells)


@cache
def _check_text(spec: str, corpus: str | None) -> None:
    """Raises LookupError: what is read here is not what the cell is named after."""
    task = catalog.load("tasks", spec)
    meant = catalog.split(spec)[1].get(place_of(task) or "")
    if corpus and meant and label_of(task, corpus) != meant:
        raise LookupError(
            f"The corpus {corpus!r} is {label_of(task, corpus)} here, and the grid was planned "
            f"with {meant}. Copy it anew."
        )


def _loaded(planned: Planned, options: Options) -> Live:
    live = load(
        planned.model,
        device=options.device,
        dtype=planned.dtype,
        trust_remote_code=options.trust_remote_code,
        device_map=options.device_map,
        shards=options.shards,
    )
    meant = planned.made_of.get("weights")
    if meant and meant != live.weights:
        raise LookupError(
            f"The model {planned.model!r} has other weights here than where the grid was planned: "
            f"sha256 {live.weights[:8]}, not {meant[:8]}. Copy or download it anew."
        )
    return checked(live)


def _memory(device: str, options: Options) -> int:
    """Bytes that a process may take; those that share weights share what is not a device's."""
    return machine.whole_memory(device) // (options.shards if device == "cpu" else 1)


def _see_that_it_answers(device: str) -> None:
    """After a fault in one of its programs, a GPU answers this process nothing any more.

    Raises:
        ChildProcessError: so it is.
    """
    if device != "cuda":
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise ChildProcessError(
            f"The GPU has stopped: {_first_line(error).rstrip('.')}. What was measured is kept; "
            "the same command goes on with the cells that are left."
        ) from error


def steps(device: str, options: Options, needed: int) -> list[tuple[int, bool]]:
    """Blocks of how many tokens, and whether with host memory, in the order of trying; maybe none.

    Args:
        device: cpu or cuda.
        options: whether host memory is to be used, and how much of the device's may be.
        needed: bytes a pass is expected to take.
    """
    on_device = [(block, False) for block in BLOCKS]
    if options.device_map:  # several devices, of which none holds all
        return on_device
    too_much = needed > _memory(device, options)
    apart = device == "cuda" or options.memory is not None
    in_host = [(block, True) for block in ((LARGE, *BLOCKS) if device == "cuda" else BLOCKS)]
    if options.offload == "on":
        return in_host
    if options.offload == "off" or not apart:
        return [] if too_much else on_device
    return in_host if too_much else on_device + in_host


def _fault(error: Exception) -> tuple[Status, str]:
    """What is said of cells that were never begun: our own sentences as they are."""
    said = _first_line(error)
    ours = isinstance(error, ValueError | LookupError) and not isinstance(error, KeyError)
    reason = said if ours and said else f"{type(error).__name__}: {said}"
    reason = blamed(error) or reason
    return ("out_of_memory" if out_of_memory(error) else "failed"), reason


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _named(cells: list[Cell]) -> str:
    return f"{cells[0].method}, {cells[0].task} at {max(c.length for c in cells):,} tokens"
