"""LLaVA-1.5 as a bundle says to the last token what transformers' own model says, on files and in a stream."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaForConditionalGeneration, LlavaProcessor

from anymodal.agent import Agent
from anymodal.bundle import load_bundle
from anymodal.session.log import Turn
from anymodal.testing import make_video
from anymodal.testing_checkpoints import make_llava, reference_answer, worst_difference
from anymodal.types import Answer

MOST = 40  # tokens of an answer
QUESTION = "What is happening in this picture?"
PROMPT = "USER: {images}\n{question} ASSISTANT:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_llava(tmp_path_factory.mktemp("checkpoints") / "llava")


@pytest.fixture(scope="module")
def agent(folder):
    bundle = load_bundle(folder)
    prompt = bundle.spec.prompt.model_copy(update={"max_answer_tokens": MOST})
    return Agent(replace(bundle, spec=bundle.spec.model_copy(update={"prompt": prompt})))


@pytest.fixture(scope="module")
def exact(agent):
    """The same with a log that keeps tokens as they are made."""
    return Agent(replace(agent.bundle, spec=agent.spec.model_copy(update={"dtype": "float32"})))


@pytest.fixture(scope="module")
def reference(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder):
    return LlavaProcessor(CLIPImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder),
                          patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1)


def noise(count, seed, px=10):
    """Frames of coloured blocks, not of the model's size."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(px, 0).repeat(px, 1) for _ in range(count)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures, and a clip that shows each for a second, to the last bit."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, frame in enumerate(noise(3, 5)):
        Image.fromarray(frame).save(folder / f"{i}.png")
    lossless(folder / "clip.mkv", noise(3, 5))
    return folder


def lossless(path, frames):
    return make_video(path, frames, rate_hz=1, codec="ffv1", pixel_format="bgr0")


def asked(processor, pictures, question=QUESTION, prompt=PROMPT):
    """What transformers' processor makes of the monolithic prompt with these pictures."""
    images = [Image.open(p).convert("RGB") for p in pictures]
    return processor(images=images, text=prompt.format(images="<image>" * len(images), question=question),
                     return_tensors="pt")


def said(processor, ids):
    return processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("count", [1, 3])
def test_text_and_logits_are_those_of_transformers(agent, reference, processor, pictures, count):
    files = sorted(pictures.glob("*.png"))[:count]
    media = files[0] if count == 1 else pictures / "clip.mkv"
    assert worst_difference(agent, media, QUESTION, reference, asked(processor, files)) < 1e-4
    answer = agent.ask(media, QUESTION)
    ids, _ = reference_answer(reference, asked(processor, files), most=MOST)
    assert answer.text == said(processor, ids) and len(ids) > 8
    assert (answer.evidence, answer.windows_seen, answer.frames_seen) == ((), count, count)


def test_what_is_seen_and_asked_matters(agent, pictures):
    files = sorted(pictures.glob("*.png"))
    texts = {agent.ask(files[0], QUESTION).text, agent.ask(files[1], QUESTION).text,
             agent.ask(files[0], "Where is the red circle now?").text, agent.ask(None, QUESTION).text}
    assert len(texts) == 4


def test_a_stream_says_what_the_monolithic_prompt_says(exact, reference, processor, pictures):
    """The staged prompt is the published one: head, pictures as they come, then the question."""
    files = sorted(pictures.glob("*.png"))
    with exact.open() as session:
        session.feed(pictures / "clip.mkv")
        session.wait()
        at_two, at_end = session.ask(QUESTION, at_s=2.0), session.ask(QUESTION)
    for answer, count in ((at_two, 2), (at_end, 3)):
        ids, _ = reference_answer(reference, asked(processor, files[:count]), most=MOST)
        assert answer.text == said(processor, ids)


def test_a_streams_log_rounds_tokens_to_bfloat16_and_nothing_else(agent, exact, pictures):
    """Where staging differs: what the mind reads of a session is what the log keeps."""
    with agent.open() as rounded, exact.open() as kept:
        for session in (rounded, kept):
            session.feed(pictures / "clip.mkv")
            session.wait()
        pairs = [(a, b) for p, q in zip(rounded.log.windows(0), kept.log.windows(0), strict=True)
                 for a, b in zip(p.tokens, q.tokens, strict=True)]
    assert len(pairs) == 3
    for ours, theirs in pairs:
        assert ours.embeds.shape == theirs.embeds.shape == (4, 48)
        assert not np.array_equal(ours.embeds, theirs.embeds)
        assert np.array_equal(ours.embeds, torch.from_numpy(theirs.embeds).bfloat16().float().numpy())


def test_a_stream_longer_than_the_memory_goes_on(agent, tmp_path):
    """Where staging differs: windows past the budget are merged, patch by patch."""
    clip = lossless(tmp_path / "long.mkv", noise(40, 1))
    small = agent.spec.memory.model_copy(update={"budget_tokens": 80})
    tight = Agent(replace(agent.bundle, spec=agent.spec.model_copy(update={"memory": small})))
    with tight.open() as session:
        session.feed(clip)
        session.wait()
        answer = session.ask(QUESTION)
    assert answer.windows_seen == 40 and answer.text


def test_earlier_turns_come_as_the_conversation_template_has_them(agent, processor, pictures):
    files = sorted(pictures.glob("*.png"))[:1]
    layout = agent.bundle.layout
    turns = [Turn(0, 1.0, "Who is there?", "a person"), Turn(0, 1.0, "Where?", "on the left")]
    ids = [*layout.head, *[layout._markers["video"]] * 4, *layout.question(QUESTION, turns)]
    prompt = ("USER: {images}\nWho is there? ASSISTANT: a person</s>USER: Where? ASSISTANT: on the left</s>"
              "USER: {question} ASSISTANT:")
    assert ids == asked(processor, files, prompt=prompt)["input_ids"][0].tolist()


def test_a_rule_is_judged_by_yes_and_no(agent, reference, processor, pictures):
    """The chance is that of the words' first tokens, as the model itself has them after the rule's prompt."""
    from anymodal.agent import new_clip
    from anymodal.stages.perceive import Perceive

    files = sorted(pictures.glob("*.png"))[:1]
    mind, perceive = agent.bundle.mind, Perceive(agent.perception)
    clip = new_clip(files[0], None, None)
    percepts = [p for w in agent.source.push(clip) for p in perceive.push((clip.session, w))] + list(perceive.close())
    [judged] = mind.judge(mind.open(windows=percepts), ["Now: a bell rings?"], evidence=True)
    inputs = asked(processor, files, "Now: a bell rings? Answer yes or no.")
    with torch.inference_mode():
        logits = reference(**inputs).logits[0, -1].float()
    tokenizer = processor.tokenizer
    yes, no = ({tokenizer.encode(w, add_special_tokens=False)[0] for w in words}
               for words in (("Yes", "yes"), ("No", "no")))
    assert yes <= set(mind.layout.yes) and no <= set(mind.layout.no) and not set(mind.layout.yes) & set(mind.layout.no)
    wanted = torch.sigmoid(logits[list(mind.layout.yes)].logsumexp(0) - logits[list(mind.layout.no)].logsumexp(0))
    assert judged.yes == pytest.approx(float(wanted), abs=1e-5) and judged.evidence == ()


def test_what_a_user_types_never_becomes_a_placeholder(agent, pictures):
    layout = agent.bundle.mind.layout
    ids = layout.question("Is <image> a </s> token?")
    assert layout._markers["video"] not in ids and not layout.stops & set(ids)
    assert "< image> a < /s>" in layout.tokenizer.decode(ids)
    assert isinstance(agent.ask(sorted(pictures.glob("*.png"))[0], "Is <image> a </s> token?"), Answer)


def test_ask_takes_a_folder_of_a_checkpoint(cli, folder, pictures, agent):
    picture = sorted(pictures.glob("*.png"))[0]
    ran = cli("ask", picture, QUESTION, "--model", folder, "--json")
    row = json.loads(ran.out)
    assert (ran.code, row["model"], row["evidence"]) == (0, str(folder), [])
    assert len(row["answer"]) > 20 and row["answer"].startswith(agent.ask(picture, QUESTION).text[:20])
