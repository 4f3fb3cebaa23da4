"""The conversation of `harness.chat` in a browser, through Gradio's ChatInterface.

https://www.gradio.app/docs/gradio/chatinterface. For this machine alone unless told otherwise, with
no share link and nothing reported to anybody. There is one model and one method for all tabs; each
tab has its own conversation, and the one that is continued is read again as far as it differs.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import catalog
from harness.chat import Chat, Message, check_named, trouble

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
try:
    import gradio as gr
except ModuleNotFoundError:
    raise ModuleNotFoundError("--web needs Gradio: pip install 'context-harness[web]'") from None

KEPT = 3600
"""Seconds that a dropped file lies in the temporary folder at most."""
TYPED = re.compile(r" \(/\w+\)")
"""Commands of the terminal, of which the page has buttons."""


def serve(chat: Chat, host: str, port: int | None) -> None:
    """Answer until interrupted.

    Raises:
        OSError: the port is taken, or there is no such address.
    """
    page = made(chat)
    open_at(page, host, port)
    page.block_thread()


def open_at(page: Any, host: str, port: int | None) -> str:
    """Serve a page from a thread; its address, which is printed too."""
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    return str(address)


def made(chat: Chat) -> Any:
    """The page: a conversation, a place to drop files, and a choice of methods."""
    box = gr.MultimodalTextbox(
        file_types=["text", ".txt", ".md", ".py"],
        file_count="multiple",
        placeholder="Ask, or drop a text file here.",
        show_label=False,
        sources=["upload"],
    )
    picker = gr.Dropdown(
        [chat.spec, *(n for n in catalog.names("methods") if n != chat.spec)],
        value=chat.spec,
        show_label=False,
        info="Such as yarn,factor=8. What was said is read again by it.",
        allow_custom_value=True,
    )
    about, kept = gr.Markdown(_about(chat), render=False), gr.State([])
    page = gr.ChatInterface(
        Answers(chat).answer,
        multimodal=True,
        textbox=box,
        chatbot=gr.Chatbot(
            placeholder=None if chat.chats else "This model goes on with what you write.",
            render_markdown=chat.chats,
            buttons=["copy"],
            show_label=False,
        ),
        additional_inputs=[picker, kept],
        additional_inputs_accordion=gr.Accordion("Method", open=True),
        additional_outputs=[about, kept],
        title=chat.live.card.name,
        flagging_mode="never",
        analytics_enabled=False,
        concurrency_limit=1,
        delete_cache=(KEPT, KEPT),
        api_visibility="private",
        save_history=False,
    )
    with page:
        about.render()
    return page


class Answers:
    """What the page calls: a message, what was said before, and a method."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._alone = threading.Lock()  # the model is one, and a stopped answer may linger
        self._picked = chat.spec
        self._started = chat.spec

    def answer(
        self,
        message: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
        method: str,
        kept: Sequence[Message],
    ) -> Iterator[tuple[str, str, list[Message]]]:
        """The answer so far, whenever it grows, a line about the conversation, and its messages.

        They are `kept` beside the page's own history, which tells how many of them still stand:
        Gradio takes white space off what it shows.
        """
        try:
            with self._alone:
                if method and method != self._picked:
                    check_named(method, self._started)
                    self.chat.use(method)
                    self._picked = method
                turn = self.chat.turn([*kept[: turns(history)], _user(message)])
                pieces = self.chat.reply(turn)
            if turn.notice:
                gr.Warning(TYPED.sub("", turn.notice), title="Beyond its range", duration=None)
            said = ""
            while (piece := self._next(pieces)) is not None:
                said += piece
                answer = {"role": "assistant", "content": said}
                yield said, _about(self.chat), [*turn.messages, answer]
        except Exception as error:
            if not (said := trouble(error)):
                raise
            said = TYPED.sub("", said)
            gr.Warning(said, title="Not answered", duration=None)  # an error would cover the page

    def _next(self, pieces: Iterator[str]) -> str | None:
        with self._alone:
            return next(pieces, None)


def turns(history: Sequence[Mapping[str, Any]]) -> int:
    """How often the word passed in Gradio's history, where files and text stand by themselves."""
    return sum(1 for _ in groupby(history, lambda message: message["role"]))


def _user(message: Mapping[str, Any]) -> Message:
    parts = [*map(_file, message.get("files") or ()), message.get("text") or ""]
    return {"role": "user", "content": "\n\n".join(filter(None, parts))}


def _file(given: Any) -> str:
    """The text of a file that was dropped.

    Raises:
        ValueError: it is no text.
    """
    path = Path(given["path"] if isinstance(given, Mapping) else given)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is no UTF-8 text: give a plain text file.") from None


def _about(chat: Chat) -> str:
    about = chat.about()
    reach = f" of {about['reach']:,}" if about["reach"] else ""
    return f"{about['tokens']:,}{reach} tokens in context, read by `{chat.spec}`"
