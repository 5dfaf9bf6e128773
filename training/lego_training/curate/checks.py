"""What makes an answer unfit as a description of its scene."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from lego_training.curate.scenes import Scene
from lego_training.dataset import Fault

SHORTEST, LONGEST = 5, 60  # words

_SIDES = ("left", "right")
_HAND = r"(?:hand|arm|forearm|wrist|palm|thumb|finger|fingertip)s?\b(?!\W+side)"
_SIDED_HAND = re.compile(rf"\b(left|right)[\s-]+(?:\w+[\s-]+)?{_HAND}", re.IGNORECASE)
_BOTH_HANDS = re.compile(
    rf"\b(?:both|two)\s+(?:of\s+\w+\s+)?{_HAND}|\b(?:left\s+and\s+right|right\s+and\s+left)\s+{_HAND}", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’]?(?=\s|$)")
_COORDINATES = re.compile(r"\[\s*\d|\b[01]?\.\d")
_FIELD = re.compile(r"\b(?:action|objects?|description|example \d+)\s*:", re.IGNORECASE)
_MARKUP = re.compile(r"\*\*|`|<|>|^\s*(?:[#*-]|\d+[.)])\s")
_TO_THE_READER = re.compile(
    r"\s*(?:sure|certainly|of course|okay|sorry|i(?:'m| am| can|'ll| will| cannot)\b|as an? (?:ai|language)|"
    r"here(?:'s| is| are)\b|(?:this|the) (?:image|picture|photo)\b)", re.IGNORECASE,
)  # fmt: skip
# Hardly an English sentence on what hands do goes without one of these; other languages have none of them.
_ENGLISH = frozenset(("the", "with", "from", "their", "his", "her", "its"))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


# After these, or an adjective, a word that may be a verb ("tap", "sinks", "dish") is a noun.
_BEFORE_NOUNS = frozenset(
    _words(
        "a an the this that these those some any each every another both his her its their our your my one two three "
        "of with in into on onto from at by under over inside behind beside near against"
    )
)
# Names of annotators that no answer is held to: words that are too often another one ("can be lifted", "on top of"),
# and parts of things, which a good description names although only the whole has a box.
_NOT_HELD_TO = frozenset(
    _words(
        "can top bottom back side front end part piece bit cut set turn place hand finger object thing body "
        "handle knob button lever switch lid cap cover door edge rim base corner tip surface inside"
    )
)
_SMALL_WORDS = frozenset(
    _words("a an the of on in into to from with at by up down out off for and or it its over under left middle right")
)


class Vocabulary:
    """Nouns that can be told from other words.

    Args:
        lines: A thing and its synonyms each, separated by commas: "cupboard, cabinet".
        names: Further things without synonyms, such as the names of a dataset's boxes.
    """

    def __init__(self, lines: Iterable[str], names: Iterable[str] = ()) -> None:
        self._things: dict[tuple[str, ...], str] = {}
        for line in (*lines, *names):
            synonyms = [words for words in map(_lemmas, _without_side(line.lower()).split(",")) if words]
            known = next((self._things[words] for words in synonyms if words in self._things), None)
            for words in synonyms:
                if words[-1] not in _NOT_HELD_TO:
                    self._things.setdefault(words, known or " ".join(synonyms[0]))
        self._longest = max(map(len, self._things), default=0)

    def things_in(self, text: str, is_sentence: bool = False) -> dict[str, str]:
        """Returns the things a text names, the longest name where several fit, each with the words it used.

        Args:
            text: A name, a label or a sentence.
            is_sentence: In a sentence, a word that may also be a verb counts where it must be a noun: after an
                article, a possessive, a preposition or an adjective ("the tap", but not "the hand taps").
        """
        words = _words(text)
        lemmas = [noun_lemma(word) for word in words]
        found: dict[str, str] = {}
        start = 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                thing = self._things.get(tuple(lemmas[start : start + length]))
                if thing is not None and (length > 1 or not is_sentence or _is_noun(words, start)):
                    found.setdefault(thing, " ".join(words[start : start + length]))
                    start += length - 1
                    break
            start += 1
        return found


def tidy(answer: str) -> str:
    """Returns an answer without what stands around the sentence: thoughts of a reasoning model, blanks, quotes."""
    text = re.sub(r"^\s*<think>.*?</think>", "", answer, flags=re.DOTALL).strip()
    for opening, closing in ('""', "“”", "''"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing:
            text = text[1:-1].strip()
    return text


def answer_faults(text: str, scene: Scene, vocabulary: Vocabulary, examples: Iterable[str] = ()) -> Iterator[Fault]:
    """Yields what is wrong with a description; nothing if it is fit.

    It finds: an answer that is empty, not one sentence, too short or too long; that repeats the prompt (coordinates,
    field names, one of its examples), talks to the reader or holds markup; that has letters of another script, or none
    of the words that English sentences have; that names no word of the label; a left or right hand that has no box; and
    an object that has no box and is not in the label, if `vocabulary` knows it. An object also counts as given when it
    shares its last word with one that is: a "measuring cup" when there is a "cup".

    It does not find: objects that the vocabulary does not know, or that are named by a word which may be a verb and
    follows another noun ("steel sink"); objects given but said to do what they do not, or to be where they are not; a
    hand given that is not the one acting; parts and materials ("handle", "lid", "steel"); a fragment that ends like a
    sentence; bad style.

    Args:
        text: The answer, tidied.
        scene: What was given.
        vocabulary: The nouns to look for.
        examples: Descriptions of the prompt's examples.
    """
    if not text:
        yield Fault("empty", "it is empty")
        return
    yield from _form_faults(text)
    if any(_words(text) == _words(example) for example in examples):
        yield Fault("repeats the prompt", "it repeats the description of an example")
    yield from _label_faults(text, scene, vocabulary)
    yield from _hand_faults(text, scene)
    yield from _object_faults(text, scene, vocabulary)


@lru_cache(maxsize=65536)
def noun_lemma(word: str) -> str:
    """Returns a noun's singular: "knives" gives "knife"; a word that is no known noun stays as it is."""
    # Here, because its table takes a moment to load.
    from lemminflect import getAllLemmas

    lemmas: tuple[str, ...] = getAllLemmas(word, upos="NOUN").get("NOUN", ())
    return min(sorted(lemmas), key=len, default=word)


def _is_noun(words: list[str], place: int) -> bool:
    from lemminflect import getAllLemmas

    if not getAllLemmas(words[place], upos="VERB"):
        return True
    before = words[place - 1] if place else ""
    return before in _BEFORE_NOUNS or bool(getAllLemmas(before, upos="ADJ"))


def _form_faults(text: str) -> Iterator[Fault]:
    count = len(_words(text))
    ends = len(_SENTENCE_END.findall(text))
    if "\n" in text or ends != 1 or not _SENTENCE_END.search(text[-2:]):
        yield Fault(
            "not one sentence",
            f"it has {ends} sentence ends; write exactly one sentence, on one line, with a full stop",
        )
    if not SHORTEST <= count <= LONGEST:
        yield Fault("length", f"it has {count} words; write {SHORTEST} to {LONGEST}")
    if _COORDINATES.search(text) or _FIELD.search(text):
        yield Fault("repeats the prompt", "it repeats coordinates or headings of the prompt; write the sentence alone")
    if _MARKUP.search(text):
        yield Fault("markup", "it holds markup; write plain text")
    if _TO_THE_READER.match(text):
        yield Fault("talks to the reader", "it talks to the reader or about the picture; describe the action itself")
    foreign = next((letter for letter in text if letter.isalpha() and ord(letter) > 0x24F), None)
    if foreign or not _ENGLISH & set(_words(text)):
        yield Fault("not English", "it is not English; write an English sentence")


def _label_faults(text: str, scene: Scene, vocabulary: Vocabulary) -> Iterator[Fault]:
    """The sentence and the label must share a thing, or a word whatever its form."""
    wanted = {_stem(word) for word in _words(scene.label) if word not in _SMALL_WORDS}
    said = {_stem(word) for word in _words(text)}
    if (
        wanted
        and not wanted & said
        and not vocabulary.things_in(scene.label).keys() & vocabulary.things_in(text, is_sentence=True).keys()
    ):
        yield Fault("another action", f"it says nothing of {scene.label!r}; describe that action")


def _hand_faults(text: str, scene: Scene) -> Iterator[Fault]:
    named = {side.lower() for side in _SIDED_HAND.findall(text)}
    if _BOTH_HANDS.search(text):
        named |= set(_SIDES)
    given = {
        side for side in _SIDES for box in scene.boxes if side in box.name and re.search(r"\b(hand|glove)", box.name)
    }
    for side in _SIDES:
        if side in named - given:
            yield Fault("absent hand", f"it names the {side} hand, which is not among what was given")


def _object_faults(text: str, scene: Scene, vocabulary: Vocabulary) -> Iterator[Fault]:
    given_texts = (scene.label, *(box.name for box in scene.boxes))
    given = {thing for given_text in given_texts for thing in vocabulary.things_in(given_text)}
    # A label's own words count even where the vocabulary does not know them; of a name, the noun it ends with.
    nouns = set(_lemmas(scene.label)) | {_lemmas(box.name)[-1] for box in scene.boxes if _lemmas(box.name)}
    nouns |= {thing.split()[-1] for thing in given}
    for thing, words in vocabulary.things_in(text, is_sentence=True).items():
        if thing not in given and thing.split()[-1] not in nouns and noun_lemma(words.split()[-1]) not in nouns:
            yield Fault("absent object", f"it names the {words}, which is not among what was given")


def _lemmas(text: str) -> tuple[str, ...]:
    return tuple(noun_lemma(word) for word in _words(text))


def _stem(word: str) -> str:
    """Enough of a word that its forms agree: "stirring", "stirs" and "stir"; "taking" and "take"."""
    return word[:3]


def _without_side(name: str) -> str:
    """The toy kitchen names things with their side: "left drawer"; hands have none of their own word left."""
    return re.sub(r"^(?:left|middle|right)\s+(?:hands?\b.*)?", "", name)
