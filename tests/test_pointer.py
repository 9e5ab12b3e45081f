"""What soft tokens say weighs in on an answer: which word of a kind, which window's time, and whether it can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from anymodal.bundle import load_bundle
from anymodal.config import configs_dir
from anymodal.errors import ConfigError
from anymodal.language.tokenizer import ANSWER, EVIDENCE, NOTE, TextTokenizer
from anymodal.testing import tokens_saying


@pytest.fixture(scope="module")
def mind():
    return load_bundle("tiny").mind


def names(mind, question: str) -> tuple[list[str], str, int]:
    """What happens, as "kind: words of thing", the thing, and the side."""
    named, lexicon = mind._ask.pointer._names.of(mind.finder.spelt(question)), mind.finder.lexicon

    def text(numbers) -> str:
        return " ".join(lexicon[n] for n in numbers)

    return ([f"{h.kind}: {'|'.join(map(text, h.words))} {text(h.thing)}".strip() for h in named.happenings],
            text(named.thing), named.side)


@pytest.mark.parametrize(("question", "happenings", "thing", "side"), [
    ("Did the bell ring before the red star stopped?", ["sound: bell", "event: stops red star"], "red star", 0),
    ("did the red satr go away?", ["event: disappears red star"], "red star", 0),
    ("When was the bouncing of the blue ring?", ["event: bounces blue ring"], "blue ring", 0),
    ("Was the red ring visible when the rising chirp sounded?", ["sound: rising chirp"], "red ring", 0),
    ("Is the red star warmer or colder?", ["change: warmer|colder star"], "star", 0),
    ("What colour was the circle before it changed?", ["event: changes circle"], "circle", -1),
    ("Which colour did the big ring become?", ["event: changes large ring"], "large ring", 1),
    ("the ring, what colour did it have befor?", ["event: changes ring"], "ring", -1),
    ("What colour did the star change to?", ["event: changes star"], "star", 1),
    ("To the left of what is the star, before it changed?", ["event: changes star"], "star", -1),
    ("Where is the star after?", [], "star", 1), ("the star has what colour?", [], "star", 0),
    ("Which way does the star move?", ["way: west|east|upward|downward star"], "star", 0),
    ("Which noise was heard?", [], "", 0), ("When was the noise burst?", ["sound: noise burst"], "", 0),
    ("What colour is the small star?", [], "small star", 0), ("Is there a red circle?", [], "red circle", 0),
    ("What colour is the large red star?", [], "red star", 0), ("", [], "", 0)])
def test_what_a_question_names(mind, question, happenings, thing, side):
    assert names(mind, question) == (happenings, thing, side)


@pytest.mark.parametrize("question", ["What happens to the star?", "what did the star do",
                                      "the star, what was going on with it?"])
def test_whatever_happens_is_asked_for_without_a_name(mind, question):
    (happening,), thing, _ = names(mind, question)
    assert happening.startswith("event: appears|disappears|changes") and thing == "star"
    assert names(mind, "Do you see the star?")[0] == []


def pointing(mind, question: str, *windows: tuple[str, ...]):
    """Windows 0, 1, ...: of each, what its tokens say, words with spaces between them."""
    said = [np.clip(chances, 0.01, 0.95) for chances in tokens_saying(mind.finder.lexicon, *windows)]
    return mind._ask.pointer.point(question, [tuple(mind.tokenizer.encode(str(k))) for k in range(len(windows))], said)


def scores(mind, **likely: float) -> torch.Tensor:
    """Log-probabilities in which the first tokens of these words, or these digits, have so much."""
    found = torch.full((mind.tokenizer.vocab,), 1e-6)
    for word, chance in likely.items():
        found[mind.tokenizer.encode(word.strip("_"))[-1 if word[0] == "_" else 0]] = chance
    return torch.log(found / found.sum())


SPACE = TextTokenizer(configs_dir() / "tiny" / "tokenizer.json").encode("1")[0]  # before a time


def say(point, mind, *texts: str | int):
    for text in texts:
        for token in (text,) if isinstance(text, int) else mind.tokenizer.encode(text):
            point.push(token)


def top(mind, found: torch.Tensor) -> str:
    assert found.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    return mind.tokenizer.decode([int(found.argmax())]).strip()


STOPS = (("red star", "nothing"), ("red star", "blue ring bounces"), ("red star stops",), ("red star",))


def test_a_time_is_that_of_what_is_asked_about(mind):
    point = pointing(mind, "When did the red star stop?", *STOPS)
    say(point, mind, "at", SPACE)
    assert top(mind, point.weigh(scores(mind, _1=0.8, _2=0.2))) == "2"
    assert top(mind, point.weigh(scores(mind, _1=0.99999, _2=1e-6))) == "1", "what is held impossible stays so"
    point.push(EVIDENCE["video"])
    assert top(mind, point.weigh(scores(mind, _1=0.8, _2=0.2))) == "1", "evidence repeats what was said"


def test_times_of_two_happenings_follow_the_question(mind):
    point = pointing(mind, "What was first, the blue ring bouncing or the red star stopping?", *STOPS)
    say(point, mind, NOTE, SPACE)
    assert top(mind, point.weigh(scores(mind, _1=0.4, _2=0.6))) == "1"
    say(point, mind, mind.tokenizer.encode("1")[1], SPACE)
    assert top(mind, point.weigh(scores(mind, _1=0.6, _2=0.4))) == "2"


def test_a_word_is_the_one_that_tokens_say_of_the_thing(mind):
    point = pointing(mind, "What happened to the red star?", *STOPS)
    say(point, mind, "it")
    assert top(mind, point.weigh(scores(mind, bounces=0.7, stops=0.3))) == "stops"
    assert top(mind, point.weigh(scores(mind, moves=0.7, stops=0.3))) == "moves", "another kind of word is left alone"
    assert top(mind, point.weigh(scores(mind, stays=0.9, stops=0.1))) == "stops", "it is asked what happened"


def test_a_step_lists_what_there_is_and_no_more(mind):
    more, end = mind.tokenizer.encode("red, red")[1], ANSWER
    for windows, ends in ((STOPS, True), ((*STOPS, ("red star disappears",)), False)):
        point = pointing(mind, "Did the red star disappear?", *windows)
        say(point, mind, NOTE, "stops")
        even = torch.full((mind.tokenizer.vocab,), 1e-6)
        even[[more, end]] = 0.5
        assert (int(point.weigh(torch.log(even)).argmax()) == end) == ends
    point = pointing(mind, "Did the red star disappear?", ("red star",))
    point.push(NOTE)
    assert top(mind, point.weigh(scores(mind, disappears=0.6, nothing=0.4))) == "not", "the first token of nothing"


def test_a_list_names_nothing_twice(mind):
    point = pointing(mind, "Did the red star bounce?", ("red star stops", "red star collides"))
    say(point, mind, NOTE, "stops,")
    assert top(mind, point.weigh(scores(mind, stops=0.9, collides=0.1))) == "collides"


def test_yes_is_said_of_what_happens_and_of_what_is_alike(mind):
    even = {"yes": 0.5, "no": 0.5}
    for question, yes in (("Did the red star stop?", True), ("Did the red star bounce?", False)):
        point = pointing(mind, question, *STOPS)
        say(point, mind, NOTE, "collides", ANSWER)
        assert top(mind, point.weigh(scores(mind, **even))) == ("yes" if yes else "no")
    for step, yes in (("top left, top left", True), ("top left, left", False)):
        point = pointing(mind, "Is the star at the left?", ("star top left",))
        say(point, mind, NOTE, step, ANSWER)
        assert top(mind, point.weigh(scores(mind, **even))) == ("yes" if yes else "no")
    point = pointing(mind, "Did the bell ring before the red star stopped?", *STOPS)
    say(point, mind, NOTE, "1 2", ANSWER)
    asked = scores(mind, **even)
    assert torch.equal(point.weigh(asked), asked), "which came first is for the language model"


def test_before_and_after_are_the_windows_beside(mind):
    windows = (("red circle",), ("red circle changes", "blue circle changes"), ("blue circle",))
    for question, beside, color in (("What colour was the circle before it changed?", "0", "red"),
                                    ("What colour was the circle after it changed?", "2", "blue")):
        point = pointing(mind, question, *windows)
        say(point, mind, NOTE, "1", ANSWER, NOTE, SPACE)
        assert top(mind, point.weigh(scores(mind, _0=0.5, _2=0.5))) == beside
        say(point, mind, mind.tokenizer.encode(beside)[1], ANSWER)
        assert top(mind, point.weigh(scores(mind, red=0.5, blue=0.5))) == color


def test_a_colour_beside_a_change_is_told_by_the_change_and_by_several_windows(mind):
    windows = (("red circle",), ("red circle",), ("pink circle",),
               ("red circle changes before", "blue circle changes after"), ("blue circle",))
    point = pointing(mind, "What colour was the circle before it changed?", *windows)
    say(point, mind, NOTE, "3", ANSWER, NOTE, SPACE, mind.tokenizer.encode("2")[1], ANSWER)
    assert top(mind, point.weigh(scores(mind, red=0.3, pink=0.7))) == "red", "pink was misread once"


def test_a_place_is_the_whole_of_it_in_the_window_looked_at(mind):
    point = pointing(mind, "Where is the star now?", ("star top left",), ("star bottom", "ring top left"))
    point.looked = 1
    assert top(mind, point.weigh(scores(mind, top=0.7, bottom=0.3))) == "bottom"
    say(point, mind, "bottom")
    assert top(mind, point.weigh(scores(mind, left=0.6, then=0.4))) == "left", "what else may follow is not the pointer's"
    point = pointing(mind, "Where is the star now?", ("star top left",))
    assert top(mind, point.weigh(scores(mind, top=0.5, bottom=0.5))) == "top"


def test_what_is_not_there_cannot_be_told_and_a_plain_no_is_said(mind):
    told, doubtful = {"at": 0.6, "i": 0.4}, {"yes": 0.6, "no": 0.4}
    for question, there in (("When did the red star stop?", True), ("When did the red star bounce?", False),
                            ("When did the red square stop?", False)):
        assert top(mind, pointing(mind, question, *STOPS).weigh(scores(mind, **told))) == ("at" if there else "i")
    assert top(mind, pointing(mind, "Is there a red square?", *STOPS).weigh(scores(mind, **doubtful))) == "no"
    assert top(mind, pointing(mind, "Is there a blue ring?", *STOPS).weigh(scores(mind, yes=0.4, no=0.6))) == "yes"


def test_yes_and_no_are_not_doubted_for_what_is_not_there(mind):
    point = pointing(mind, "Was there a time when the red star bounced?", *STOPS)
    assert top(mind, point.weigh(scores(mind, at=0.5, no=0.4, i=0.1))) == "no"


@pytest.mark.parametrize("question", ["Was there a time when the red star stopped?",
                                      "say, is there a part where the red star stops"])
def test_where_yes_or_no_is_asked_for_no_time_and_no_place_is_said(mind, question):
    point = pointing(mind, question, *STOPS)
    assert point.named.polar
    assert top(mind, point.weigh(scores(mind, at=0.99, i=0.0099, no=1e-4, yes=1e-5))) == "yes", "tokens say it stops"
    say(point, mind, NOTE, "2", ANSWER)
    assert top(mind, point.weigh(scores(mind, top=0.999, no=1e-4, yes=1e-5))) == "yes"
    unseen = pointing(mind, question.replace("star", "square"), *STOPS)
    assert top(mind, unseen.weigh(scores(mind, at=0.9, i=0.09, no=0.01))) == "i", "what is not seen may be left open"


@pytest.mark.parametrize("question", [
    "When was there a bell?", "what sound was there", "How many stars are there?", "Was there a bell or a beep first?",
    "After there was a sound, what colour was it?", "Is there a star, and what colour is it?", "There was a star. Where?",
    "Tell me the second there was a bell", "The star that was there at 2 s, where was it?"])
def test_what_else_is_asked_of_what_is_there(mind, question):
    assert not mind._ask.pointer._names.of(question).polar


SOUNDS = (("nothing",), ("low bell starts",), ("low bell", "low beep starts"), ("low beep",), ("high clicks starts",),
          ("nothing",))


@pytest.mark.parametrize(("question", "window", "sound"), [
    ("What was the first sound?", 1, "bell"), ("With which noise did it begin?", 1, "bell"),
    ("Which sound did you hear last?", 4, "clicks"), ("what do you hear at the end", 4, "clicks"),
    ("When was the last sound?", 4, "clicks"), ("When did the first sound start?", 1, "bell"),
    ("Can you tell me what the latest sound was?", 4, "clicks"), ("Give me the last noise in the clip.", 4, "clicks")])
def test_the_first_and_the_last_sound_are_those_that_began_first_and_last(mind, question, window, sound):
    point = pointing(mind, question, *SOUNDS)
    assert point.edge == window
    say(point, mind, NOTE, SPACE)
    assert top(mind, point.weigh(scores(mind, **{"_2": 0.9, f"_{window}": 0.1}))) == str(window)
    say(point, mind, mind.tokenizer.encode(str(window))[1], ANSWER)
    others = {"bell": 0.0, "clicks": 0.0, "beep": 0.9} | {sound: 0.05}
    point.push(mind.tokenizer.encode("a")[0])
    if sound != "clicks":  # "a beep", "clicks"
        assert top(mind, point.weigh(scores(mind, **others))) == sound


@pytest.mark.parametrize("question", [
    "Was the bell first?", "What was the first sound after the star stopped?", "What sound was heard first or last?",
    "What was the last sound before 3 s?", "What was the first thing?",
    "What sound was there while the star began to move?", "Did a sound start?", "Was there a sound at the start?",
    "Was the final sound low?", "Is there a sound close by?", "How long does the sound last?",
    "When did the last sound end?", "What sound was there in the last 3 seconds?", "What were the last two sounds?",
    "What have you heard since the beginning?", "Tell me whether the last sound was high."])
def test_what_else_is_asked_of_sounds(mind, question):
    assert not mind._ask.pointer._names.of(question).edge


def test_the_first_sound_is_not_told_by_windows_that_are_not_the_first(mind):
    point = pointing(mind, "What was the first sound?", *SOUNDS)
    later = replace(point, all_of_it=False)
    last = replace(later, named=mind._ask.pointer._names.of("What was the last sound?"))
    assert later.edge is None and last.edge == 4 and replace(last, whole_from=5).edge is None, "others may lie between"


@pytest.mark.parametrize(("question", "answer"), [
    ("Did anything stop?", "yes"), ("does anything collide", "no"), ("Was there a time when something stopped?", "yes"),
    ("Can you tell me whether any of the objects vanished?", "no"), ("hey, did one of the things come to rest?", "yes")])
def test_whether_anything_does_something_is_told_by_tokens_alone(mind, question, answer):
    assert pointing(mind, question, *STOPS).named.anything
    for sure in ("that", "i", "at", "yes", "no"):
        said = {"yes": 1e-4, "no": 1e-4} | {sure: 0.999}
        assert top(mind, pointing(mind, question, *STOPS).weigh(scores(mind, **said))) == answer


def test_where_windows_lack_it_is_for_the_language_model(mind):
    point = replace(pointing(mind, "Did anything collide?", *STOPS), all_of_it=False)
    assert point.named.anything and top(mind, point.weigh(scores(mind, that=0.9, yes=0.07))) == "yes", "it is of this world"


@pytest.mark.parametrize("question", [
    "Did the red star stop?", "Did anything stop twice?", "Did anything red stop?", "When did anything stop?",
    "Did anything ring?", "Did anything at the top stop?", "Does anything exist?", "At 3 s, did anything bounce?",
    "Before 0:04, did anything bounce?", "What happens if something collides?",
    "Which sound do you hear if something bounces?", "Has anything stopped now?", "Does something appear to bounce?",
    "Did anything change shape?", "Did anything collide with it?",
    "Did any of them stop or bounce?"])
def test_more_than_whether_anything_does_something_is_not(mind, question):
    assert not mind._ask.pointer._names.of(question).anything


def test_a_shape_is_told_by_all_windows_that_show_the_thing_and_not_overruled(mind):
    windows = (("blue cross",), ("blue cross", "red star"), ("blue cross", "blue star nothing"))
    point = pointing(mind, "What shape is the blue object?", *windows)
    assert top(mind, point.weigh(scores(mind, star=0.6, cross=0.4))) == "cross", "one window in three was misread"
    point = pointing(mind, "What shape is the blue object?", *windows[:2])
    assert top(mind, point.weigh(scores(mind, star=0.995, cross=0.005))) == "cross"


def test_a_word_that_the_question_names_is_only_weighed_where_a_step_says_what_there_is(mind):
    point = pointing(mind, "Is the star red?", ("blue star",))
    point.push(NOTE)
    assert top(mind, point.weigh(scores(mind, red=0.6, blue=0.4))) == "blue"
    say(point, mind, "blue,")
    assert top(mind, point.weigh(scores(mind, red=0.6, blue=0.4))) == "red"


def test_which_came_first_is_told_in_words_of_the_earlier(mind):
    for times, first in (("1 2", "blue"), ("2 1", "red")):
        point = pointing(mind, "Which came first, the blue ring bouncing or the red star stopping?", *STOPS)
        say(point, mind, NOTE, times, ANSWER, "the")
        assert top(mind, point.weigh(scores(mind, red=0.5, blue=0.5))) == first
    point = pointing(mind, "Which came first, the red star stopping or the red star appearing?", *STOPS)
    say(point, mind, NOTE, "2 1", ANSWER, "the red star")
    assert top(mind, point.weigh(scores(mind, stopping=0.6, appearing=0.4))) == "appear", "its first token"


def test_what_a_step_compares_is_what_the_question_names(mind):
    for question, step, wrong, asked in (("Is the star moving up?", "down,", "down", "up"),
                                         ("Is the star at the right?", "left,", "left", "right"),
                                         ("Is the star red?", "blue,", "blue", "red")):
        point = pointing(mind, question, ("star blue left downward",))
        say(point, mind, NOTE, step)
        assert top(mind, point.weigh(scores(mind, **{wrong: 0.6, asked: 0.4}))) == asked


@pytest.mark.parametrize("question", [
    "Is the red star visible now?", "Is the blue ring still there?", "Did the red star stop at 5 s?",
    "Is there no blue ring?"])
def test_yes_is_not_weighed_where_it_says_more_than_that_something_was_there(mind, question):
    point, even = pointing(mind, question, *STOPS), scores(mind, yes=0.3, no=0.7)
    assert point is None or top(mind, point.weigh(even)) == "no"


def test_what_may_have_been_before_all_windows_is_not_doubted(mind):
    said = [np.full((2, len(mind.finder.lexicon)), 0.01)] * 2
    labels = [tuple(mind.tokenizer.encode(str(k))) for k in (7, 8)]
    told = scores(mind, at=0.6, i=0.4)
    for all_of_it, begins in ((True, "i"), (False, "at")):
        point = mind._ask.pointer.point("When did the red star stop?", labels, said, all_of_it)
        assert top(mind, point.weigh(told)) == begins
    say(point, mind, "at", SPACE)
    asked = scores(mind, _7=0.4, _8=0.6)
    assert torch.equal(point.weigh(asked), asked), "no window tells when"


def test_what_went_on_before_the_first_window_is_there(mind):
    point = pointing(mind, "Was the device shaken?", ("shaking",), ("nothing",))
    assert point.seen > 0.9 and point.when[0].max() < 0.1, "it began in none of them"


@pytest.mark.parametrize("question", [
    "Did the red star and the blue ring collide?", "Is the star left of the ring?", "When did the bell stop ringing?",
    "Did the star cross the ring?"])
def test_what_no_single_token_tells_is_left_to_the_language_model(mind, question):
    assert pointing(mind, question, *STOPS) is None


def test_times_of_minutes_are_read_whole(mind):
    labels = [tuple(mind.tokenizer.encode(t)) for t in ("1", "1:05", "1:06")]
    said = [np.full((1, len(mind.finder.lexicon)), 0.01)] * 3
    point = mind._ask.pointer.point("What was first, the blue ring bouncing or the red star stopping?", labels, said)
    assert point.times(mind.tokenizer.encode("1:06 1:05 1 1")) == [2, 1, 0, 0]


def test_what_is_counted_is_listed_once_each_and_its_number_told(mind):
    windows = (("red star", "blue ring"), ("red star", "blue ring", "green cross"),
               ("red star changes", "pink star changes"), ("pink star", "blue ring"), ("pink star", "blue ring"))
    more, end = mind.tokenizer.encode("red, red")[1], ANSWER

    def goes_on(question: str, listed: str) -> bool:
        point = pointing(mind, question, *windows)
        say(point, mind, NOTE, listed)
        even = torch.full((mind.tokenizer.vocab,), 1e-6)
        even[[more, end]] = 0.5
        return int(point.weigh(torch.log(even)).argmax()) == more

    for question in ("How many objects are there?", "How many objects show up?"):
        assert goes_on(question, "red star") and not goes_on(question, "red star, blue ring"), "green once, pink was red"
    assert not goes_on("How many stars are there?", "red star") and not goes_on("Count the blue things.", "blue ring")
    point = pointing(mind, "How many objects are there?", *windows)
    say(point, mind, NOTE)
    assert top(mind, point.weigh(scores(mind, red=0.3, purple=0.7))) == "red"
    say(point, mind, "red star,")
    assert top(mind, point.weigh(scores(mind, red=0.9, blue=0.1))) == "blue"
    say(point, mind, "blue ring", ANSWER)
    assert mind.tokenizer.encode("2")[0] == SPACE
    say(point, mind, SPACE)
    assert top(mind, point.weigh(scores(mind, _3=0.7, _2=0.3))) == "2"
    point = pointing(mind, "How many crosses are there?", ("red star",), ("red star",))
    say(point, mind, NOTE)
    assert top(mind, point.weigh(scores(mind, red=0.6, nothing=0.4))) == "not", "the first token of nothing"


@pytest.mark.parametrize("question", [
    "how mny stars are there?", "stars, how mnay", "how maby red things", "What nunber of objects do you see?",
    "cuont the stars", "Of the round shapes, how many did you see?"])
def test_counting_is_asked_for_in_misspelt_words_too(mind, question):
    assert mind._ask.pointer._names.of(mind.finder.spelt(question)).counts


@pytest.mark.parametrize("question", ["how may i see the circle", "how much is the star", "how big is the circle?"])
def test_other_words_ask_for_no_count(mind, question):
    assert not mind._ask.pointer._names.of(mind.finder.spelt(question)).counts


def test_a_thing_that_was_rather_not_shown_is_not_listed_however_likely_its_name(mind):
    lexicon = mind.finder.lexicon
    said = [np.array([[0.95 if w in thing else 0.01 for w in lexicon] for thing in (("blue", "star"), ("red", "ring"))]
                     + [[0.4 if w in ("blue", "ring") else 0.01 for w in lexicon]]) for _ in range(3)]
    point = mind._ask.pointer.point("How many objects are there?", [(k,) for k in range(3)], said)
    say(point, mind, NOTE, "blue star,")
    assert top(mind, point.weigh(scores(mind, blue=0.95, red=0.05))) == "red"


def test_what_else_has_a_number_is_no_count_of_things(mind):
    assert pointing(mind, "How many seconds until the red star stopped?", *STOPS).listing is None
    point, asked = pointing(mind, "What number of the clip is it?", *STOPS), scores(mind, _1=0.6, _2=0.4)
    say(point, mind, NOTE, SPACE)
    assert torch.equal(point.weigh(asked), asked), "a step that is no list is left alone"


def test_what_never_moves_stays_still(mind):
    for windows, said in (((("red star",),) * 3, "it"), ((("red star",), ("red star west",), ("red star",)), "left")):
        point = pointing(mind, "Which way does the red star go?", *windows)
        point.looked = 0
        assert top(mind, point.weigh(scores(mind, it=0.5, left=0.5))) == said


def test_a_way_is_told_where_a_way_is_asked_for(mind):
    for windows, said in ((("red star west top",), "left"), (("red star top",), "it")):
        point = pointing(mind, "To which part is the red star moving?", windows)
        assert top(mind, point.weigh(scores(mind, top=0.9, left=0.05, it=0.05))) == said
    point = pointing(mind, "Where is the red star?", ("red star west top",))
    assert top(mind, point.weigh(scores(mind, top=0.6, left=0.4))) == "top"


def test_what_has_left_is_gone_until_it_is_seen_again(mind):
    left = (("red star top",), ("red star top disappears",), ("nothing",))
    for windows, said in ((left, "it"), ((*left, ("red star bottom",)), "bottom"), ((("red star bottom",),) * 2, "bottom")):
        point = pointing(mind, "Where is the red star now?", *windows)
        point.looked = len(windows) - 1
        assert top(mind, point.weigh(scores(mind, it=0.5, bottom=0.5))) == said
    assert pointing(mind, "Where is the red star?", *left).there.tolist() == pytest.approx([0.95, 0.95, 0.01])
    missed = (("red star",), ("nothing",), ("red star",))
    assert pointing(mind, "Where is the red star?", *missed).there.min() > 0.9, "it was there, if not read"


def test_a_place_at_first_is_the_one_a_thing_comes_from(mind):
    moves = (("nothing",), ("red star top before", "red star middle after"), ("red star middle",))
    for question, k, place in (("Where was the red star at first?", 1, "top"), ("Where is the red star now?", 1, "middle")):
        point = pointing(mind, question, *moves)
        say(point, mind, NOTE, SPACE)
        looks = point.weigh(scores(mind, _0=0.3, _1=0.3, _2=0.4))
        assert top(mind, looks) == ("1" if place == "top" else "2"), "where it is, and not where it is not"
        say(point, mind, mind.tokenizer.encode("1")[1], ANSWER)
        point.looked = k
        assert top(mind, point.weigh(scores(mind, top=0.5, middle=0.5))) == place


def test_whether_a_window_shows_a_thing_is_told_by_its_name(mind):
    for there, said in ((("bell starts", "red star"), "red"), (("bell starts",), "not")):
        point = pointing(mind, "Was the star visible when the bell rang?", ("red star",), there)
        say(point, mind, NOTE, "1", ANSWER, NOTE)
        point.looked = 1
        assert top(mind, point.weigh(scores(mind, red=0.5, nothing=0.5))) == said


def test_nothing_is_weighed_where_nothing_is_named_or_nothing_was_seen(mind):
    assert pointing(mind, "What is there?", *STOPS) is None and pointing(mind, "Is there a star?") is None


READER = {"use": "anymodal.language.word_reader:WordReader", "tokens": {"video": 2, "audio": 1, "imu": 1},
          "words": ["nothing", "stops", "starts"]}


@pytest.mark.parametrize(("change", "match"), [
    ({"point": {"kinds": ["event"]}}, "no word_reader"),
    ({"word_reader": {"use": "anymodal.language.word_reader:WordReader"}, "search": None}, "words of `search`"),
    ({"word_reader": READER, "point": {"kinds": ["evnt"]}}, "event"),
    ({"word_reader": READER, "point": {"kinds": ["event"], "begins": "stats"}}, "starts")])
def test_a_bundle_that_cannot_point_is_refused(own_bundle, change, match):
    path, raw, _ = own_bundle
    words = {"search": {"words": {"event": ["stops"]}, "phrases": {}}, "joint_text": raw["language"]}
    path.write_text(yaml.safe_dump(raw | words | change))
    with pytest.raises(ConfigError, match=match):
        load_bundle(path)


@pytest.mark.parametrize(("at_change", "things"), [
    ((("blue star",), ("red star",)), 1), ((("blue star changes before",), ("red star changes after",)), 1),
    ((("blue star",), ("red star appears",)), 2), ((("blue star disappears",), ("red star",)), 2),
    ((("blue star",), ("red star", "blue star")), 2)])
def test_a_thing_that_takes_another_colour_is_counted_once(mind, at_change, things):
    later = at_change[1] if len(at_change[1]) > 1 else ("red star",)
    point = pointing(mind, "How many stars are there?", ("blue star",), *at_change, later)
    assert sum(chance > 0.5 for chance in point.listing.chances.values()) == things


def test_what_is_heard_while_a_thing_is_seen(mind):
    question = "What did you hear while the red star was visible?"
    for windows, heard in (((("red star", "silence"), ("nothing", "low bell starts")), False),
                           ((("red star", "low bell starts"), ("nothing", "high beep starts")), True)):
        point = pointing(mind, question, *windows)
        begin = scores(mind, silence=0.5, yes=0.4, a=0.1)
        begin[NOTE] = begin.max()
        begin = torch.log_softmax(begin, -1)
        assert int(point.weigh(begin).argmax()) == (NOTE if heard else mind.tokenizer.encode("silence")[0])
    say(point, mind, NOTE, SPACE)
    assert top(mind, point.weigh(scores(mind, _0=0.4, _1=0.6))) == "0", "where both are"
    say(point, mind, mind.tokenizer.encode("0")[1], ANSWER)
    assert top(mind, point.weigh(scores(mind, yes=0.9, a=0.06, clicks=0.04))) == "a"
    point.push(mind.tokenizer.encode("a bell")[0])
    assert top(mind, point.weigh(scores(mind, beep=0.9, bell=0.1))) == "bell"


def test_a_thing_goes_on_under_the_name_that_it_has_in_the_question(mind):
    windows = (("red star left",), ("red star changes before left", "blue star changes after left"), ("blue star right",))
    asked = (("Where is the red star now?", 2, "right"), ("Where was the blue star at first?", 0, "left"),
             ("Where is the red object now?", 2, "right"))
    for question, end, where in asked:
        point = pointing(mind, question, *windows)
        assert point.there.min() > 0.9, "it is there all the time"
        point.looked = end
        assert top(mind, point.weigh(scores(mind, left=0.5, right=0.5))) == where
    point = pointing(mind, "Where is the red star now?", ("red star left",), ("nothing",), ("blue star right",))
    assert point.there[2] < 0.1, "nothing is said to have changed: another star"


@pytest.mark.parametrize("question", [
    "Did you hear anything while the star was visible?", "Is the star visible when you hear a noise?",
    "Where was the star when a noise was heard?", "Was a bell or a chirp heard while the circle was visible?",
    "Was the device shaking or rotating while the star was visible?", "What size was the red star when you heard a sound?"])
def test_what_else_is_asked_with_sounds_and_things(mind, question):
    assert not mind._ask.pointer._names.of(question).heard
    if (point := pointing(mind, question, ("red star", "low bell starts"))) is not None:
        assert top(mind, point.weigh(scores(mind, yes=0.8, bottom=0.2))) == "yes"
