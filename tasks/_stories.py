"""Stories of people, places and things, each with a question that its facts decide.

The kinds are the first five of bAbI, Weston et al. 2015, https://arxiv.org/abs/1502.05698: one, two
and three supporting facts, relations of two and of three arguments. The simulation is our own.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

PEOPLE = ("Mary", "John", "Daniel", "Sandra")
GIVERS = ("Bill", "Fred", "Jeff", "Mary")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
GO = ("went to", "went back to", "travelled to", "journeyed to", "moved to")
TAKE = ("took", "got", "grabbed", "picked up")
LEAVE = ("dropped", "left", "put down", "discarded")
GIVE = ("gave", "passed", "handed")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


@dataclass(frozen=True)
class Story:
    """Facts in the order in which they happened, a question, and the one right word."""

    facts: tuple[str, ...]
    question: str
    answer: str


@dataclass
class World:
    """Who is where, who holds what, and where each thing has been."""

    rng: random.Random
    people: tuple[str, ...]
    facts: list[str] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=dict)
    """Places of people, and of things that lie somewhere."""
    held: dict[str, str] = field(default_factory=dict)
    """Who holds a thing."""
    been: dict[str, list[str]] = field(default_factory=dict)
    """Places of each thing, one for each fact that moved it."""

    def go(self, who: str, where: str = "") -> None:
        where = where or self.rng.choice([p for p in PLACES if p != self.at.get(who)])
        self.at[who] = where
        self.facts.append(f"{who} {self.rng.choice(GO)} the {where}.")
        for what in (thing for thing, holder in self.held.items() if holder == who):
            self.been[what].append(where)

    def take(self, who: str) -> None:
        """A thing that nobody holds and that has not been elsewhere."""
        free = [t for t in THINGS if t not in self.held and self.at.get(t) in (None, self.at[who])]
        if free:
            what = self.rng.choice(free)
            self.held[what] = who
            self.at.pop(what, None)
            self.been.setdefault(what, []).append(self.at[who])
            self.facts.append(f"{who} {self.rng.choice(TAKE)} the {what} there.")

    def leave(self, who: str) -> None:
        holding = [thing for thing, holder in self.held.items() if holder == who]
        if holding:
            what = self.rng.choice(holding)
            del self.held[what]
            self.at[what] = self.at[who]
            self.facts.append(f"{who} {self.rng.choice(LEAVE)} the {what}.")

    def act(self) -> None:
        """Somebody does something that can be done."""
        who = self.rng.choice(self.people)
        deed = self.rng.choice((self.go, self.go, self.take, self.leave))
        (self.go if who not in self.at else deed)(who)


def one_fact(rng: random.Random) -> Story | None:
    """Where is Mary?"""
    world = World(rng, PEOPLE)
    for _ in range(rng.randint(2, 10)):
        world.go(rng.choice(PEOPLE))
    who = rng.choice(list(world.at))
    return Story(tuple(world.facts), f"Where is {who}?", world.at[who])


def two_facts(rng: random.Random) -> Story | None:
    """Where is the milk? Who took it, and where that person went."""
    world = World(rng, PEOPLE)
    for _ in range(rng.randint(6, 20)):
        world.act()
    if not world.been:
        return None
    what = rng.choice(list(world.been))
    where = world.at[world.held[what]] if what in world.held else world.at[what]
    return Story(tuple(world.facts), f"Where is the {what}?", where)


def three_facts(rng: random.Random) -> Story | None:
    """Where was the apple before the kitchen? It came there last, and once."""
    world = World(rng, PEOPLE)
    for _ in range(rng.randint(10, 40)):
        world.act()
    ways = {t: [place for place, _ in groupby(places)] for t, places in world.been.items()}
    known = [thing for thing, way in ways.items() if len(way) > 1 and way.count(way[-1]) == 1]
    if not known:
        return None
    what = rng.choice(known)
    *_, before, last = ways[what]
    return Story(tuple(world.facts), f"Where was the {what} before the {last}?", before)


def two_arguments(rng: random.Random) -> Story | None:
    """What is north of the kitchen? What is the kitchen north of?"""
    middle, first, second = rng.sample(PLACES, 3)
    one, other = rng.sample(list(OPPOSITE), 2)
    facts = [f"The {a} is {d} of the {b}." for a, b, d in (
        (first, middle, one),
        (second, middle, other) if rng.random() < 0.5 else (middle, second, OPPOSITE[other]),
    )]  # fmt: skip
    rng.shuffle(facts)
    if rng.random() < 0.5:
        return Story(tuple(facts), f"What is {one} of the {middle}?", first)
    return Story(tuple(facts), f"What is the {middle} {OPPOSITE[one]} of?", first)


def three_arguments(rng: random.Random) -> Story | None:
    """Who gave what to whom; each question has one answer in the whole story."""
    world = World(rng, GIVERS)
    gifts: list[tuple[str, str, str]] = []
    for _ in range(rng.randint(6, 20)):
        if world.held and rng.random() < 0.4:
            what = rng.choice(list(world.held))
            giver = world.held[what]
            taker = rng.choice([g for g in GIVERS if g != giver])
            if world.at.get(taker) != world.at[giver]:
                world.go(taker, world.at[giver])
            world.held[what] = taker
            gifts.append((giver, what, taker))
            world.facts.append(f"{giver} {rng.choice(GIVE)} the {what} to {taker}.")
        else:
            world.act()
    return _about_a_gift(world.facts, gifts, rng)


def _about_a_gift(
    facts: list[str], gifts: list[tuple[str, str, str]], rng: random.Random
) -> Story | None:
    kinds: list[tuple[str, int]] = [
        ("What did {0} give to {2}?", 1),
        ("Who did {0} give the {1} to?", 2),
        ("Who gave the {1} to {2}?", 0),
        ("Who gave the {1}?", 0),
        ("Who received the {1}?", 2),
    ]
    rng.shuffle(kinds)
    for kind, asked in kinds:
        answers: dict[str, set[str]] = {}
        for gift in gifts:
            answers.setdefault(kind.format(*gift), set()).add(gift[asked])
        if clear := [(q, a) for q, (a, *more) in answers.items() if not more]:
            question, answer = rng.choice(clear)
            return Story(tuple(facts), question, answer)
    return None


KINDS: dict[str, Callable[[random.Random], Story | None]] = {
    "qa1": one_fact,
    "qa2": two_facts,
    "qa3": three_facts,
    "qa4": two_arguments,
    "qa5": three_arguments,
}


def story(kind: str, rng: random.Random) -> Story:
    """One that has a question; chance is asked until it does."""
    while (told := KINDS[kind](rng)) is None:
        pass
    return told
