"""What the wearer means by what was said: a new query, a correction of the last one, or a word to the assistant.

Rules, no model: `COMMANDS` has the words to the assistant, `interpret` the corrections. What fits neither is a query.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from lego_core.errors import LegoError


class Intent(Enum):
    """What is to be done."""

    ASK = "ask"  # the query
    CORRECT = "correct"  # the query, in place of the last one
    AGAIN = "again"  # the same query once more, of what is seen now and with another seed
    NEXT = "next"  # the query, which asks for the step after the last one
    BACK = "back"  # the query before the last one, which is then forgotten
    REPEAT = "repeat"  # nothing: say and show the last answer once more
    STOP = "stop"  # nothing: be silent, and cancel what is under way
    NOTHING = "nothing"  # nothing: the wearer is content
    UNCLEAR = "unclear"  # nothing: tell the wearer why


@dataclass(frozen=True)
class Meaning:
    """What was made of what was said.

    Attributes:
        intent: What is to be done.
        query: What to ask; None where nothing is asked.
        explanation: One sentence for the wearer.
    """

    intent: Intent
    query: str | None
    explanation: str


# Each pattern must fit all that was said: "stop the mixer" and "how do I go back to the menu" are queries. The first
# that fits counts.
COMMANDS: tuple[tuple[Intent, str], ...] = (
    (Intent.STOP, r"stop( (it|that|talking|speaking|now))?|(be )?(quiet|silent)|silence|hush|(shut|hush) up"),
    (Intent.STOP, r"enough|that('s| is) (enough|all)|cancel( (it|that))?|never ?mind|forget (it|that)"),
    (Intent.REPEAT, r"(repeat|say)( (it|that|this))?( again| once more)?|tell me( that)? (again|once more)"),
    (Intent.REPEAT, r"what did you say|what was that|pardon|i did(n't| not) (hear|catch|get) (it|that|you)"),
    (Intent.AGAIN, r"again|once (again|more)|(one more|another) (time|try|one|picture)"),
    (Intent.AGAIN, r"(try|do|draw|show)( me)?( (it|that))? (again|once more)|show me another( (one|picture))?"),
    (Intent.NEXT, r"next|(the )?next (one|step)|what('s| is| comes)? (the )?next( step)?|go on|continue"),
    (Intent.NEXT, r"(and )?(then what|what then|what now|what else|now what)|and (then|now)"),
    (Intent.NEXT, r"what (do|should) i do (next|now|then)|(done|i('m| am) done)( what('s| is)? next)?"),
    (Intent.BACK, r"(go )?back|go back( (one|a) step)?|(the )?previous( (one|step|question))?"),
    (Intent.BACK, r"the one before( that)?|undo( (it|that))?"),
    (Intent.NOTHING, r"(no )?thanks|thank you( (very|so) much)?|yes|yeah|yep|ok|okay|right|got it|i see"),
    (Intent.NOTHING, r"((all|that's|very) )?(right|good|fine|great|perfect|cool)|hm+|uh+|um+|oh"),
)
_POLITE = r"(?:(?:ok|okay|please|hey|well|um|uh|and) )*"
_COMMANDS = [
    (intent, re.compile(rf"{_POLITE}(?:{pattern})(?: please| now| thanks| thank you)*")) for intent, pattern in COMMANDS
]

# What a correction begins with, as often as it likes: "no no wait I mean the lid".
_LEAD = re.compile(
    r"(?:no|nope|nah|wait|sorry|actually|rather|oops|i mean|i meant|i said|instead|but|(?:it|that)(?:'s| is)(?= not ))"
    r"(?: |$)"
)
_TRAIL = re.compile(r" (?:instead|rather|i mean|i meant|please)$")
_OPENING = re.compile(
    r"(?:(?:please|can you|could you|and|now|so) )*"
    r"(?:how (?:do|can|could|should|would|must) (?:i|you|we)|how to|(?:show|tell|teach) me how (?:to|i)|show me"
    r"|help me(?: to)?|i(?: want| need|'d like| would like) to"
    r"|(?:what|where|which|why|when|who)(?:'s| is| are| do| does| can)?)"
    r"(?: |$)"
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_DETERMINERS = _set("the a an my your this that these those some its another both")
_PREPOSITIONS = _set("with without into in inside on onto from to under over off at behind beside through around")
_PARTICLES = _set("on off up down out in over away open apart together")
_PRONOUNS = _set("it that this them these those")
_PLACES = _set(
    "left right upper lower top bottom middle other first second third last front back big bigger biggest small "
    "smaller smallest large larger red green blue white black yellow brown silver grey wooden metal"
)
_VERBS = _set(
    "open close pour cut wash take put tighten loosen fold mix stir peel slice chop fill dry rinse lift move pick "
    "crack knead sweep wipe hammer screw unscrew turn shake scoop flip push pull press hold remove use clean grab "
    "insert drop lock unlock switch start grate roll squeeze empty drain spread sprinkle wrap unwrap plug unplug"
)
_REMEMBERED = 20  # queries
_ALIKE = 0.65  # by difflib's measure "pen" and "pan" are 0.67 alike, "spoon" and "pot" 0.5


@dataclass(frozen=True)
class _Phrase:
    """A thing in a sentence: "into" "the" "big cup"."""

    preposition: str
    determiner: str
    noun: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.preposition, self.determiner, self.noun)))


@dataclass(frozen=True)
class _Action:
    """A query taken apart: "how do i" "pour" [water] [into the cup]."""

    opening: str
    verb: str
    phrases: tuple[_Phrase, ...]

    @property
    def what(self) -> str:
        """What is done, without the question around it."""
        return " ".join(filter(None, (self.verb, *map(str, self.phrases))))

    def __str__(self) -> str:
        return " ".join(filter(None, (self.opening, self.what)))


class Dialogue:
    """What one wearer has asked so far; turns what is said into what is to be done."""

    def __init__(self) -> None:
        self._history: list[str] = []

    @property
    def last(self) -> str | None:
        """The query that a correction would be about."""
        return self._history[-1] if self._history else None

    def asked(self, query: str) -> None:
        """Notes what was asked otherwise than by voice, so that a correction is about that."""
        if query != self.last:
            self._history = [*self._history, query][-_REMEMBERED:]

    def hear(self, said: str) -> Meaning:
        """Returns what the wearer means, and remembers the query. A corrected query is forgotten.

        Args:
            said: A final transcript.

        Raises:
            LegoError: It has no word in it.
        """
        meaning = interpret(said, self._history)
        if meaning.intent in (Intent.CORRECT, Intent.BACK):
            self._history.pop()
        if meaning.intent in (Intent.ASK, Intent.CORRECT, Intent.NEXT) and meaning.query is not None:
            self._history = [*self._history, meaning.query][-_REMEMBERED:]
        return meaning


def interpret(said: str, history: Sequence[str] = ()) -> Meaning:
    """Returns what the wearer means.

    Args:
        said: A final transcript.
        history: The queries asked so far in this conversation, the last one last, each as a `Meaning` had it.

    Raises:
        LegoError: `said` has no word in it.
    """
    words = _words(said)
    if not words:
        raise LegoError("nothing was said; ask for example 'how do I open the drawer?'")
    for intent, pattern in _COMMANDS:
        if pattern.fullmatch(words):
            return _command(intent, words, history)
    correction, led = words, False
    while lead := _LEAD.match(correction):
        correction, led = correction[lead.end() :], True
    while trail := _TRAIL.search(correction):
        correction, led = correction[: trail.start()], led or trail.group() != " please"
    if not history:
        if led and not correction:
            return Meaning(Intent.UNCLEAR, None, "there is nothing yet to say no to; ask something first")
        return Meaning(Intent.ASK, _spoken(correction), "a new query")
    last = _take_apart(_words(history[-1]))
    if led and not correction:
        return Meaning(Intent.UNCLEAR, None, "say what you mean instead, for example 'the left one'")
    if _is_whole(correction):
        asked, explanation = _with_things(_take_apart(correction), last)
        if not _OPENING.match(correction):
            asked = replace(asked, opening=last.opening)
        if led:
            return Meaning(Intent.CORRECT, _spoken(str(asked)), f"in place of '{history[-1]}'")
        return Meaning(Intent.ASK, _spoken(str(asked)), explanation)
    if led or _is_fragment(correction):
        corrected = _corrected(last, correction)
        if corrected is not None:
            query = _spoken(str(corrected))
            return Meaning(Intent.CORRECT, query, f"'{_spoken(words)}' changes '{history[-1]}' to '{query}'")
        message = f"it is not clear what '{_spoken(words)}' changes in '{history[-1]}'; say the whole of it"
        return Meaning(Intent.UNCLEAR, None, message)
    return Meaning(Intent.ASK, _spoken(words), "a new query")


def _command(intent: Intent, words: str, history: Sequence[str]) -> Meaning:
    if intent in (Intent.STOP, Intent.NOTHING):
        return Meaning(intent, None, "stopped" if intent is Intent.STOP else "nothing to do")
    if not history:
        return Meaning(Intent.UNCLEAR, None, f"'{words}' means something only after a query; ask one first")
    if intent is Intent.REPEAT:
        return Meaning(intent, None, f"the answer to '{history[-1]}' once more")
    if intent is Intent.AGAIN:
        return Meaning(intent, history[-1], f"'{history[-1]}' asked once more")
    if intent is Intent.NEXT:
        query = _spoken(f"what do i do next after i {_take_apart(_words(history[-1])).what}")
        return Meaning(intent, query, f"the step after '{history[-1]}'")
    if len(history) < 2:
        return Meaning(Intent.UNCLEAR, None, f"there is no query before '{history[-1]}'")
    return Meaning(intent, history[-2], f"back to '{history[-2]}'")


def _words(text: str) -> str:
    """Returns the words alone, in lower case, one space between them; recognisers set commas where they like."""
    return " ".join(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.replace("’", "'").lower()))


def _spoken(words: str) -> str:
    return re.sub(r"\bi\b", "I", words)


def _is_whole(words: str) -> bool:
    """Whether a sentence has an action of its own: a question, or a verb and what is done to it."""
    if _OPENING.match(words):
        return True
    first, *others = words.split()
    return first in _VERBS and bool(others) and others != ["one"]


def _is_fragment(words: str) -> bool:
    """Whether something that was not called a correction cannot be anything else: "the left one", "with a spoon"."""
    first, *others = words.split()
    return first in _DETERMINERS | _PREPOSITIONS | _PRONOUNS | {"not"} or (first in _PLACES and len(others) <= 1)


def _take_apart(words: str) -> _Action:
    opening = _OPENING.match(words)
    rest = words[opening.end() :].split() if opening else words.split()
    verb = rest[:1]
    if len(rest) > 2 and rest[1] in _PARTICLES:  # "turn on the stove"
        verb = rest[:2]
    phrases = _phrases(rest[len(verb) :])
    return _Action(opening.group().strip() if opening else "", " ".join(verb), phrases)


def _phrases(words: list[str]) -> tuple[_Phrase, ...]:
    """Cuts at prepositions, and before a determiner that follows a thing."""
    phrases: list[_Phrase] = []
    preposition = determiner = ""
    noun: list[str] = []

    def close() -> None:
        nonlocal preposition, determiner, noun
        if preposition or determiner or noun:
            phrases.append(_Phrase(preposition, determiner, " ".join(noun)))
        preposition, determiner, noun = "", "", []

    for word in words:
        if word in _PREPOSITIONS:
            close()
            preposition = word
        elif word in _DETERMINERS and noun[-1:] == ["of"]:  # "the lid of the pot" is one thing
            noun.append(word)
        elif word in _DETERMINERS:
            if noun or determiner:
                close()
            determiner = word
        else:
            noun.append(word)
    close()
    return tuple(phrases)


def _with_things(asked: _Action, last: _Action) -> tuple[_Action, str]:
    """Puts the last query's thing where the new one says "it"."""
    thing = next((phrase for phrase in last.phrases if not phrase.preposition), None)
    if thing is None or not asked.phrases:
        return asked, "a new query"
    phrases = tuple(_put_right(thing, phrase) if _is_pronoun(phrase) else phrase for phrase in asked.phrases)
    if phrases == asked.phrases:
        return asked, "a new query"
    return replace(asked, phrases=phrases), f"a new query, about '{replace(thing, preposition='')}'"


def _is_pronoun(phrase: _Phrase) -> bool:
    return f"{phrase.determiner}{phrase.noun}" in _PRONOUNS or phrase.noun.split()[-1:] == ["one"]


def _corrected(last: _Action, correction: str) -> _Action | None:
    """Returns the last query with the correction put in, or None where it has no place for it."""
    verb = last.verb.split()
    if correction in _PARTICLES and len(verb) == 2:  # "turn on the stove": "no, off"
        return replace(last, verb=f"{verb[0]} {correction}")
    wrong, right = _wrong_and_right(correction)
    action = last
    for number, phrase in enumerate(_phrases(right.split())):
        if not phrase.noun and phrase.determiner not in _PRONOUNS:
            return None  # "with", "the": the rest was not heard
        place = _place(action, phrase, wrong if number == 0 else "")
        phrases = list(action.phrases)
        if place is None:
            phrases.append(phrase)
        else:
            phrases[place] = _put_right(phrases[place], phrase)
        action = replace(action, phrases=tuple(phrases))
    return action if action != last else None


def _wrong_and_right(correction: str) -> tuple[str, str]:
    """Takes "not the drawer the door" and "the door not the drawer" apart."""
    before, negation, after = f" {correction} ".partition(" not ")
    if not negation:
        return "", correction
    if before.strip():
        return after.strip(), before.strip()
    after = re.sub(r"^but ", "", after.strip())
    phrases = _phrases(re.sub(r"\b(?:but|rather|i mean|it's|it is) ", "", after).split())
    if len(phrases) < 2:
        return after, ""
    return str(phrases[0]), " ".join(map(str, phrases[1:]))


def _place(action: _Action, phrase: _Phrase, wrong: str) -> int | None:
    """Returns which phrase of a query is meant: the one called wrong, or by its preposition, likeness, or place."""
    nouns = [each.noun for each in action.phrases]
    wrong_noun = _phrases(wrong.split())[0].noun if wrong else ""
    for name in filter(None, (wrong_noun, phrase.noun if not phrase.preposition else "")):
        alike = [difflib.SequenceMatcher(None, name, noun).ratio() for noun in nouns]
        if alike and max(alike) >= _ALIKE:
            return alike.index(max(alike))
    if phrase.preposition:
        same = [number for number, each in enumerate(action.phrases) if each.preposition == phrase.preposition]
        return same[0] if same else None
    vague = [number for number, each in enumerate(action.phrases) if each.determiner in ("a", "an")]
    if phrase.determiner in ("a", "an") and len(vague) == 1:  # "tighten the screw with a hammer": "a wrench"
        return vague[0]
    direct = [number for number, each in enumerate(action.phrases) if not each.preposition]
    return direct[0] if direct else 0 if action.phrases else None


def _put_right(old: _Phrase, new: _Phrase) -> _Phrase:
    """Returns the phrase as it was meant; "the left one" is the left of what it was."""
    preposition = new.preposition or old.preposition
    words = new.noun.split()
    if f"{new.determiner}{new.noun}" in _PRONOUNS:  # "it"; "not this cup, that"
        determiner = new.determiner if new.determiner in ("this", "that") else old.determiner
        return _Phrase(preposition, determiner, old.noun)
    if words[-1:] in (["one"], ["ones"]):
        words = words[:-1]
    elif not all(word in _PLACES for word in words):
        return _Phrase(preposition, new.determiner or old.determiner, new.noun)
    kept = [word for word in old.noun.split() if word not in _PLACES] if words else old.noun.split()
    return _Phrase(preposition, new.determiner or "the", " ".join([*words, *kept]))
