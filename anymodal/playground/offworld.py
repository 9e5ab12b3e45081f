"""Questions the model should decline: about people, places, prices, anything that is not in the playground's world.

Most valuable are the near misses, which sound like questions the model can answer ("what colour is the dog?").
They make up about six draws in ten.
"""

from __future__ import annotations

import random
import string

from anymodal.playground.offworld_templates import FAR_TEXT, NEAR_TEXT, TYPED_TEXT
from anymodal.playground.offworld_words import LEXICON, plural
from anymodal.playground.wordings import SLOTS, TEMPLATES, fields, fix_articles, split_block, vary

NEAR: tuple[str, ...] = split_block(NEAR_TEXT)
FAR: tuple[str, ...] = split_block(FAR_TEXT)
TYPED: tuple[str, ...] = split_block(TYPED_TEXT)

_PLURALS = {"animals": "animal", "people": "person", "things": "thing", "items": "item", "vehicles": "vehicle"}
_NOUNS = frozenset(("animal", "person", "vehicle", "item", "garment", "thing", "being", "food", "nature", "building"))
_NO_SLOTS = {kind for kind, slots in SLOTS.items() if not slots}
_NOT_BORROWED = _NO_SLOTS | {"describe_at", "yn_device", "device_when", "nearest", "hottest"}
_BORROWED = tuple(kind for kind in TEMPLATES if kind not in _NOT_BORROWED)

OFF_WORLD_TEST: tuple[str, ...] = split_block("""
What colour is the walrus? | Where is the astronaut now? | How many ostriches are there?
When did the limousine stop? | Is the hippopotamus small or large? | Was the ukulele low or high?
Where was the janitor at first? | What happens to the jellyfish? | Which way does the hedge trimmer move?
Is there a badger in the clip? | What color was the caravan before it changed?
Did the pirate sneeze before the ninja waved? | Did you hear a rooster?
Was the wizard visible when the cuckoo called? | Which came first, the referee falling or the goalkeeper laughing?
Is the toaster purple? | Is the raccoon moving to the left? | Count the flamingos. | What shape is the pretzel?
At what second did the librarian drop her spectacles? | Is the vampire at the top left now?
Name the colour of the yacht. | Did you see the squid disappear? | What size is the caterpillar?
How high was the bagpipe? | Where did the cheetah end up? | What did the carpenter do to the green triangle?
Who coloured the star in? | How many corners has a hexagon got? | Does the circle belong to somebody?
Is the ring made of platinum? | What is the cross doing on a Sunday? | Which artist painted the blue square?
Why does the bell ring at noon? | How many grams does the triangle weigh?
Is the pink star older than the white one? | What would the square say if it could talk? | Did the beep annoy you?
Who pressed the button that made the beep? | Which factory made the bell? | Is the camera waterproof?
How many megapixels has the camera? | Which app recorded the clip? | What is the battery level of the device?
Whose hand was shaking the phone? | Is the person carrying the device wearing sneakers?
What street was the phone dropped on? | Is the man wearing spectacles? | What breed is the poodle's puppy?
What does the billboard say? | How many guests are in the ballroom? | What tune is the busker playing?
Is the caravan parked near the cliff? | Describe the pantry. | Switch off the chandelier.
Does the bride look nervous? | Who is hiding behind the wardrobe? | Is the lawn mown?
Which sandwich has pickles in it? | Is the dentist left-handed? | Can you read the label on the jar?
Who wrote Hamlet? | What is the boiling point of ethanol? | What's 17 squared plus 4? | How many ounces in a stone?
Who scored in the cup final last night? | Should I repaint the veranda? | What's a good name for a ferret?
How long do you boil a quail egg? | Is gluten bad for toddlers? | My ankle is swollen, any advice?
Which side effects has ibuprofen? | Why do onions make us weep? | What happened at the battle of Hastings?
Who succeeded Queen Victoria? | When did the Berlin Wall fall? | How deep is the Baltic?
Is Reykjavik rainy in April? | Which tram goes to the aquarium? | What's the exchange rate for the yen?
How do mortgages work? | Can you proofread my cover letter? | Write a haiku about autumn rain.
Refactor this class to use generics. | What does a segmentation fault mean? | How do I undo my last git commit?
What is Kubernetes for? | I had an awful quarrel with my flatmate. | Do you ever get homesick? | Are you conscious?
May I call you Bob? | Good evening, how was your weekend? | Où se trouve la gare ? | Welche Farbe hat der Hund?
¿De qué color es el gato? | 这只狗是什么颜色的? | Quanti anni hai? | wqpoeir zmxn | ????!? | gfdgfd hgf
""")
"""A hundred questions to test refusal with: none of them is among training's."""


def off_world(rng: random.Random, *, noise: float = 1.0) -> str:
    """One question from outside the world, typed the way people type; ``noise=0`` leaves it as composed."""
    draw = rng.random()
    if draw < 0.34:
        return borrow(rng, noise=noise)
    if draw < 0.62:
        template = rng.choice(NEAR)
    elif draw < 0.96:
        template = rng.choice(FAR)
    else:
        return _typed(rng)
    return vary(rng, fill(rng, template), noise=noise)


def borrow(rng: random.Random, *, noise: float = 1.0) -> str:
    """A wording of a question that the model can answer, asked about a thing that it cannot know."""
    kind = rng.choice(_BORROWED)
    text = rng.choice(TEMPLATES[kind]).format_map(_outside_slots(rng))
    return vary(rng, fix_articles(text), noise=noise, kind=kind)


def fill(rng: random.Random, template: str) -> str:
    """The template with a word of the lists in each field; a trailing 2 asks for a second, different one."""
    values: dict[str, str] = {}
    for name in sorted(fields(template)):
        values[name] = _word(rng, name, values)
    return fix_articles(template.format_map(values))


def nouns() -> tuple[str, ...]:
    """Every noun of training's outside questions."""
    keys = ("thing", "garment", "room", "instrument", "body")
    return tuple(dict.fromkeys(word for key in keys for word in LEXICON[key]))


def _word(rng: random.Random, name: str, taken: dict[str, str]) -> str:
    if name in ("n", "m"):
        return str(rng.randrange(1, 100))
    if name == "year":
        return str(rng.randrange(1400, 2031))
    if name == "door":
        return rng.choice(("door", "window", "gate", "shop"))
    key = name.rstrip("2")
    single = _PLURALS.get(key, key)
    options = LEXICON[single]
    word = _made_up(rng) if single in _NOUNS and rng.random() < 0.2 else rng.choice(options)
    other = taken.get(key)
    while other in (word, plural(word)):
        word = rng.choice(options)
    return plural(word) if key in _PLURALS else word


def _outside_slots(rng: random.Random) -> dict[str, str]:
    """A value for every slot that borrowed templates use, none of them an answerable thing."""
    noun = _noun(rng)
    qualifier = rng.choice(LEXICON[rng.choice(("worldcolor", "worldsize", "othercolor", "adjective"))])
    obj = f"{qualifier} {noun}" if rng.random() < 0.35 else noun
    actor, at = rng.choice(LEXICON["being"]), rng.randrange(len(LEXICON["base"]))
    base, past = LEXICON["base"][at], rng.choice(LEXICON["past"])
    ing, sound = rng.choice(LEXICON["ing"]), rng.choice(LEXICON["instrument"])
    second = rng.choice(LEXICON["name"]) if rng.random() < 0.5 else "the " + rng.choice(LEXICON["being"])
    return {
        "obj": obj, "objs": f"{qualifier} {plural(noun)}" if obj != noun else plural(noun), "a_obj": "a " + obj,
        "after": "",
        "sound": sound, "a_sound": "a " + sound, "color": rng.choice(LEXICON["othercolor"] + LEXICON["worldcolor"]),
        "size": rng.choice(LEXICON["adjective"] + LEXICON["worldsize"]),
        "place": rng.choice((f"in the {rng.choice(LEXICON['room'])}", f"in {rng.choice(LEXICON['city'])}",
                             f"on the {rng.choice(LEXICON['item'])}", rng.choice(LEXICON["worldplace"]))),
        "direction": rng.choice((*LEXICON["worlddirection"], f"to the {rng.choice(LEXICON['building'])}",
                                 f"towards {rng.choice(LEXICON['city'])}")),
        "base": f"the {actor} {base}", "past": f"the {actor} {past}", "ing": f"the {actor} {ing}",
        "a_base": f"the {actor} {base}", "a_past": f"the {actor} {past}", "a_ing": f"the {actor} {ing}",
        "b_base": f"{second} {rng.choice(LEXICON['base'])}", "b_past": f"{second} {rng.choice(LEXICON['past'])}",
        "b_ing": f"{second} {rng.choice(LEXICON['ing'])}",
    }


def _noun(rng: random.Random) -> str:
    """A noun: people and animals oftenest, since they are what is asked about most."""
    if rng.random() < 0.3:
        return _made_up(rng)
    return rng.choice(LEXICON[rng.choice(("animal", "person", "vehicle", "item", "garment", "thing"))])


def _made_up(rng: random.Random) -> str:
    """A word that nobody knows, so that what is declined is any noun but the world's own, not only those listed here."""
    heads, tails = ("b br c ch cl d dr f fl g gl gr h j k l m n p pl pr qu r s sc sh sl sn sp st t th tr v w z".split(),
                    ("", "", "", "n", "r", "l", "m", "ck", "st", "nd", "sh", "x", "t", "p", "ng", "d"))
    return "".join(rng.choice(heads) + rng.choice(("a", "e", "i", "o", "u", "oo", "ea", "ai", "y")) + rng.choice(tails)
                   for _ in range(rng.choice((1, 2, 2, 3))))


def _typed(rng: random.Random) -> str:
    """What a hand on a keyboard produces: set scraps, or letters at random."""
    if rng.random() < 0.5:
        return rng.choice(TYPED)
    letters = rng.choice((string.ascii_lowercase, "asdfghjkl", "qwertyuiop", string.digits, "?!.,#@ "))
    words = ("".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(rng.randrange(1, 4)))
    return " ".join(words).strip() or "?"
