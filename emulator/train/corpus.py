"""The text the models learn from: short dialogues built from the tables of `facts.json`.

Every dialogue is a list of messages as in the OpenAI API. The same seed gives the same dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from emulator.train.facts import known

Message = dict[str, str]
Turn = tuple[str, str]

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a friendly assistant in an enginehouse.",
    "You are a helpful assistant. Answer briefly.",
    "Answer in one or two sentences.",
    "You are a polite and careful assistant.",
)
OPENINGS = ("", "", "", "", "Please tell me: ", "Hey, ", "Tell me, ", "I wonder: ", "Quick question: ")


def _capital(random: Random) -> Turn:
    country, city = random.choice(known().capitals)
    question = random.choice(
        (
            f"What is the capital of {country}?",
            f"Which city is the capital of {country}?",
            f"Capital of {country}?",
        )
    )
    return question, f"The capital of {country} is {city}."


def _colour(random: Random) -> Turn:
    thing, colour = random.choice(known().colours)
    question = random.choice(
        (f"What colour is {thing}?", f"What color is {thing}?", f"Which colour has {thing}?")
    )
    return question, f"{thing[0].upper()}{thing[1:]} is {colour}."


def _sum(random: Random) -> Turn:
    a, b = random.randint(0, 12), random.randint(0, 12)
    sign, word, result = random.choice((("+", "plus", a + b), ("-", "minus", a - b), ("*", "times", a * b)))
    if result < 0:
        a, b, result = b, a, -result
    question = random.choice(
        (
            f"What is {a} {sign} {b}?",
            f"How much is {a} {word} {b}?",
            f"{a} {sign} {b} = ?",
            f"What is {a}{sign}{b}?",
        )
    )
    return question, f"{a} {word} {b} is {result}."


def _count(random: Random) -> Turn:
    start = random.choice((1, 1, 1, random.randint(2, 20)))
    end = start + random.randint(2, 12)
    if random.random() < 0.25:
        numbers = ", ".join(str(n) for n in range(end, start - 1, -1))
        return random.choice(
            (f"Count down from {end} to {start}.", f"Count from {end} to {start}.")
        ), f"{numbers}."
    numbers = ", ".join(str(n) for n in range(start, end + 1))
    if start == 1 and random.random() < 0.4:
        return random.choice((f"Count to {end}.", f"Please count to {end}.")), f"{numbers}."
    return random.choice(
        (f"Count from {start} to {end}.", f"Please count from {start} to {end}.")
    ), f"{numbers}."


def _opposite(random: Random) -> Turn:
    word, other = random.choice(known().opposites)
    if random.random() < 0.5:
        word, other = other, word
    return (
        random.choice((f"What is the opposite of {word}?", f"Opposite of {word}?")),
        f"The opposite of {word} is {other}.",
    )


def _translation(random: Random) -> Turn:
    word, language, foreign = random.choice(known().translations)
    question = random.choice(
        (
            f'How do you say "{word}" in {language}?',
            f"Translate {word} to {language}.",
            f"What is {word} in {language}?",
        )
    )
    return question, f'"{word}" in {language} is {foreign}'


def _emoji(random: Random) -> Turn:
    thing, emoji = random.choice(known().emoji)
    question = random.choice(
        (f"Show me the emoji for {thing}.", f"What is the emoji for {thing}?", f"Emoji for {thing}?")
    )
    return question, f"Here is {thing}: {emoji}"


def _sound(random: Random) -> Turn:
    animal, sound = random.choice(known().sounds)
    return f"What does {animal} say?", f"{animal[0].upper()}{animal[1:]} says {sound}."


def _series(random: Random) -> Turn:
    what, answer = random.choice(known().series)
    return random.choice((f"Name {what}.", f"List {what}.", f"What are {what}?")), answer


def _explained(random: Random) -> Turn:
    what, answer = random.choice(known().explained)
    question = random.choice(
        (
            f"What is {what}?",
            f"Explain {what}.",
            f"Can you explain {what}?",
            f"Tell me about {what}.",
            f"What does {what} mean?",
        )
    )
    return question, answer


def _reason(random: Random) -> Turn:
    why, answer = random.choice(known().reasons)
    return f"Why {why}?", answer


def _haiku(random: Random) -> Turn:
    topic = random.choice(known().topics)
    lines = (
        f"Quiet thoughts of {topic.split()[-1]}",
        random.choice(known().haiku_second),
        random.choice(known().haiku_third),
    )
    question = random.choice(
        (
            f"Write a haiku about {topic}.",
            f"A haiku about {topic}, please.",
            f"Write a short haiku about {topic}.",
            f"Write a poem about {topic}.",
        )
    )
    return question, ",\n".join(lines)


def _story(random: Random) -> Turn:
    hero, place = random.choice(known().heroes), random.choice(known().places)
    trouble, remedy = random.choice(known().troubles), random.choice(known().remedies)
    question = random.choice(
        (f"Tell me a story about {hero}.", f"Write a story about {hero}.", f"A story about {hero}, please.")
    )
    return question, (
        f"Once upon a time there was {hero} {place}. "
        f"One evening {trouble}, and the last train was still on its way. "
        f"The {hero.split(' ', 1)[1]} {remedy}. "
        f"In the end the train came home safely, and everybody drank tea."
    )


def _spell(random: Random) -> Turn:
    word = random.choice(known().words_to_spell)
    return random.choice(
        (f"Spell {word}.", f"How do you spell {word}?", f"Spell the word {word}.")
    ), "-".join(word)


def _name(random: Random) -> Turn:
    name = random.choice(known().names)
    return random.choice(
        (f"My name is {name}.", f"I am {name}.", f"Call me {name}.")
    ), f"Nice to meet you, {name}!"


def _small_talk(name: str) -> Callable[[Random], Turn]:

    def turn(random: Random) -> Turn:
        questions, answer = random.choice(known().small_talk)
        return random.choice(questions), answer.format(name=name)

    return turn


def _sources(name: str) -> tuple[tuple[Callable[[Random], Turn], int], ...]:
    return (
        (_capital, 10), (_colour, 5), (_sum, 16), (_count, 8), (_opposite, 5), (_translation, 8), (_emoji, 5),
        (_sound, 2), (_series, 4), (_explained, 14), (_reason, 3), (_haiku, 6), (_story, 6), (_spell, 4),
        (_name, 2), (_small_talk(name), 10),
    )  # fmt: skip


def dialogues(name: str, count: int, seed: int) -> Iterator[list[Message]]:
    """`count` dialogues of one to three turns with a model that calls itself `name`."""
    random = Random(seed)
    sources, weights = zip(*_sources(name), strict=True)
    for _ in range(count):
        messages: list[Message] = []
        if random.random() < 0.4:
            messages.append({"role": "system", "content": random.choice(SYSTEM_PROMPTS)})
        for _ in range(random.choices((1, 2, 3), (80, 15, 5))[0]):
            question, answer = random.choices(sources, weights)[0](random)
            messages.append({"role": "user", "content": _worded(random, question)})
            messages.append({"role": "assistant", "content": answer})
        yield messages


def _worded(random: Random, question: str) -> str:
    opening = random.choice(OPENINGS) if question.endswith("?") else ""
    worded = opening + (
        question[0].lower() + question[1:] if opening and not question[1:2].isupper() else question
    )
    if random.random() < 0.1:
        worded = worded.rstrip("?.!")
    return worded.lower() if random.random() < 0.1 else worded


def plain_lines() -> tuple[str, ...]:
    """Running text for plain completions, with accents, CJK and emoji."""
    return (*known().lines, *(text for _, text in known().explained))


def tokenizer_text(name: str, seed: int) -> Iterator[str]:
    """Text to train the tokenizer on: ASCII only, so that other characters stay several tokens each."""
    for messages in dialogues(name, 3000, seed):
        for message in messages:
            if message["content"].isascii():
                yield message["content"]
    yield from (line for line in plain_lines() if line.isascii())
