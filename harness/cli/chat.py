"""`harness chat`: talk with an extended model, in the terminal, through a pipe or in a browser."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

if TYPE_CHECKING:
    from harness.chat import Chat

HELP = (
    "Talk with an extended model.\n\n"
    "Ctrl-C stops an answer, and once more leaves. A line that ends in a backslash goes on in the "
    'next; lines between two of """ are one. What is piped in is one question a line, and only '
    "answers come out. Try it on --file BOOK.txt, and switch with /method while you talk."
)
EXAMPLES = (
    "harness chat --model smollm2-135m --method yarn --factor 4 --file BOOK.txt\n\n"
    "echo 'def main(argv):' | harness chat --max-new-tokens 40\n\n"
    "harness chat --model smollm2-135m --web"
)
COMMANDS = {
    "/help": "this",
    "/clear": "forget what was said; a file that was given stays",
    "/stats": "tokens in context, memory, tokens a second",
    "/method NAME": "read the conversation again by another method, such as pi,factor=8",
    "/quit": "leave; so does Ctrl-D",
}
QUOTES = '"""'
LOOPBACK = "127.0.0.1"


def chat(
    model: Annotated[
        str, Option(metavar="NAME", help="Known name, folder or hub name: `list models`, `models`.")
    ] = "toy",
    method: Annotated[
        str,
        Option("--method", "-m", metavar="NAME", help="auto: what the model was trained with."),
    ] = "auto",
    factor: Annotated[
        float | None, Option(metavar="X", help="How many times further than trained; else 4.")
    ] = None,
    file: Annotated[
        Path | None, Option(metavar="FILE", help="A text that stands before the first question.")
    ] = None,
    prompt: Annotated[
        Literal["auto", "base", "chat"],
        Option(help="base: the model goes on with the text; chat: by its template, as auto."),
    ] = "auto",
    temperature: Annotated[float, Option(metavar="X", help="0: always the likeliest.")] = 0.0,
    top_p: Annotated[float, Option(metavar="X", help="Among the likeliest of this sum.")] = 1.0,
    seed: Annotated[int, Option(metavar="N", help="What is random follows from it.")] = 0,
    max_new_tokens: Annotated[int, Option(metavar="N", help="Of an answer.")] = 512,
    device: Annotated[str, Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, Option(metavar="NAME", help="auto, bfloat16 or float32.")] = "auto",
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
    web: Annotated[bool, Option("--web", help="In a browser, on this machine.")] = False,
    host: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="With --web: who may reach it; 0.0.0.0: anybody; else you."),
    ] = None,
    port: Annotated[int | None, Option(metavar="N", help="With --web; else the next free.")] = None,
) -> None:
    """Talk with an extended model."""
    from harness.chat import Chat, Sampling, check_factor

    check_factor(factor)
    if web:
        from harness.web import serve
    elif host or port is not None:
        raise typer.BadParameter("--host and --port are for --web")
    sampling = Sampling(
        temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens
    )
    document = _text(file) if file else ""
    live, reader = _loaded(model, device, dtype, trust_remote_code)
    with Chat(
        live,
        reader,
        method,
        factor=factor,
        document=document,
        prompt=prompt,
        sampling=sampling,
    ) as opened:
        if web:
            serve(opened, host or LOOPBACK, port)
        else:
            there = sys.stdin and sys.stdin.isatty()
            raise typer.Exit(Talk(opened, Screen() if there else Pipe()).run())


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no UTF-8 text: give a plain text file.") from None


def _loaded(model: str, device: str, dtype: str, trust_remote_code: bool) -> tuple[Any, Any]:
    from harness.machine import cache_folder
    from harness.model import load
    from harness.probe import checked
    from harness.reader import TokenReader

    live = checked(load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code))
    return live, TokenReader(live.tokenizer, cache_folder())


class Pipe:
    """Questions from standard input, one a line; answers, and nothing else, to standard output."""

    patient = False
    """Nobody is there to press Ctrl-C twice."""

    def ask(self) -> str:
        line = sys.stdin.readline() if sys.stdin else ""
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def say(self, piece: str) -> None:
        print(piece, end="", flush=True)

    def tell(self, text: str) -> None:
        """What was asked for by a command."""
        print(text)

    def note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr)

    @contextmanager
    def reading(self, tokens: int) -> Iterator[Callable[[int], None]]:
        yield lambda read: None


class Screen(Pipe):
    """A terminal."""

    patient = True

    def __init__(self) -> None:
        from harness.report.table import console

        with suppress(ImportError):
            import readline  # noqa: F401  (input() has a history then)
        self.console = console()

    def ask(self) -> str:
        return whole(input)

    def say(self, piece: str) -> None:
        self.console.print(piece, end="", soft_wrap=True)

    def tell(self, text: str) -> None:
        self.console.print(text)

    def note(self, text: str) -> None:
        self.console.print(text, style="yellow")

    @contextmanager
    def reading(self, tokens: int) -> Iterator[Callable[[int], None]]:
        done = 0
        with self.console.status(f"reading {tokens:,} tokens") as status:

            def step(read: int) -> None:
                nonlocal done
                done += read
                status.update(f"reading {tokens:,} tokens: {done / max(1, tokens):.0%}")

            yield step


def whole(read: Callable[[str], str]) -> str:
    """What a person says: a line, lines that end in a backslash and the next, or a quoted block."""
    line = read("> ")
    if line.strip() == QUOTES:
        lines = iter(lambda: read(". "), QUOTES)
        return "\n".join(lines)
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{read('. ')}"
    return line


class Talk:
    """Question and answer, until somebody leaves."""

    def __init__(self, chat: "Chat", view: Pipe) -> None:
        self.chat, self.view, self.code = chat, view, 0

    def run(self) -> int:
        """The exit code: 0, 1 if a question could not be answered, 130 if interrupted."""
        self._greet()
        interrupted = False
        while True:
            try:
                text = self.view.ask()
            except EOFError:
                return self.code
            except KeyboardInterrupt:
                if interrupted or not self.view.patient:
                    return 130
                interrupted = True
                self.view.note("\nOnce more, or /quit, to leave.")
                continue
            if text.strip() == "/quit":
                return self.code
            interrupted = bool(text.strip()) and self._interrupted(text)
            if interrupted and not self.view.patient:
                return 130

    def _greet(self) -> None:
        chat, view = self.chat, self.view
        if view.patient:
            view.tell(f"{chat.live.card.name} with {chat.spec}, {self._reach()}. /help says more.")
        if not chat.chats:
            view.note("This model goes on with what you write: it holds no conversations.")
        self._remark()

    def _reach(self) -> str:
        reach, trained = self.chat.reach, self.chat.live.card.original_length
        if reach is None:
            return "of any length"
        return f"set to read {reach:,} tokens, {reach / trained:g} times as many as trained"

    def _remark(self) -> None:
        from harness.learned import noticed

        chat = self.chat
        if remark := noticed(chat.spec, chat.live, chat.reach or chat.live.card.original_length):
            self.view.note(remark)

    def _interrupted(self, text: str) -> bool:
        """Do what was asked; whether it was stopped."""
        try:
            if text.startswith("/"):
                self._command(text)
            else:
                self._answer(text)
        except KeyboardInterrupt:
            self.view.say("\n")
            self.view.note("Stopped.")
            return True
        except Exception as error:
            from harness.chat import trouble

            if not (said := trouble(error)):
                raise
            self.view.note(said)
            self.code = 0 if self.view.patient else 1
        return False

    def _answer(self, text: str) -> None:
        turn = self.chat.say(text)
        if turn.notice:
            self.view.note(turn.notice)
        with self.view.reading(len(turn.tokens) - self.chat.shared(turn)) as step:
            pieces = self.chat.reply(turn, step)
            piece = next(pieces, None)
        try:
            while piece is not None:
                self.view.say(piece)
                piece = next(pieces, None)
        finally:
            pieces.close()
        self.view.say("\n")

    def _command(self, text: str) -> None:
        name, _, rest = text.strip().partition(" ")
        match name, rest.strip():
            case "/help", _:
                self.view.tell("\n".join(f"{c:13} {about}" for c, about in COMMANDS.items()))
            case "/clear", _:
                self.chat.clear()
            case "/stats", _:
                self.view.tell(stats(self.chat.about()))
            case "/method", "":
                self.view.tell(f"{self.chat.spec}, {self._reach()}.")
            case "/method", spec:
                self.chat.use(spec)
                self._remark()
                if self.view.patient:
                    self.view.tell(f"{self.chat.spec}, {self._reach()}.")
            case _:
                known = ", ".join(c.partition(" ")[0] for c in COMMANDS)
                raise ValueError(f"There is no {name}, only {known}. Put a space before to say it.")


def stats(about: dict[str, Any]) -> str:
    """What `/stats` prints."""
    reach = f" of {about['reach']:,}" if about["reach"] else ""
    return (
        f"{about['tokens']:,}{reach} tokens in context, read by {about['method']}\n"
        f"{about['keys'] / 2**20:,.1f} MiB of keys, {about['memory'] / 2**20:,.0f} MiB in all\n"
        f"read {about['read']:,} new tokens, {about['read_per_second']:,.0f} a second\n"
        f"wrote {about['written']:,} tokens, {about['written_per_second']:,.1f} a second"
    )
