"""What a course reads: text cut to its length, a folder of sequences, chats, or questions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.train.checkpoint import Rows
    from harness.train.course import Course


def rows(course: "Course", *, seed: int = 42, trust_remote_code: bool = False) -> "Rows":
    """The course's training data; `seed`: of what is made up for it.

    Raises:
        LookupError: no such corpus.
        ValueError: it is shorter than one sequence.
    """
    from harness import machine
    from harness.model import describe, tokenizer

    reads = tokenizer(
        describe(course.model, trust_remote_code=trust_remote_code), trust_remote_code
    )
    length = course.numbers.sequence_length
    wanted = course.numbers.steps * course.rows
    if course.stage == "chat":
        from harness.train.chat import open_conversations

        on = "assistant" if course.answers_only else "all"
        return open_conversations(course.corpus, reads, length, on=on, first=wanted)
    if course.stage == "retrieval":
        from harness.train.retrieval import open_questions

        cache = machine.cache_folder()
        return open_questions(course.corpus, reads, length, wanted, seed, cache)
    from harness.train.packing import open_sequences

    return open_sequences(course.corpus, reads, length, machine.cache_folder(), first=wanted)
