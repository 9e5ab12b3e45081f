"""The BLIP-2 line as bundles says what transformers' own models say: BLIP-2, InstructBLIP, its video form, MiniGPT-4."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer, BlipImageProcessorPil

from anymodal.agent import Agent, load, new_clip
from anymodal.asked import Kept, Recent, pooled
from anymodal.bundle import Bundle, load_bundle
from anymodal.config import configs_dir, read_spec
from anymodal.errors import ConfigError, QuestionError, WeightsError
from anymodal.language.rows import Rows
from anymodal.stages.items import Percept, Question
from anymodal.stages.perceive import Perceive
from anymodal.stages.source import Source
from anymodal.testing import make_video
from anymodal.testing_checkpoints import reference_answer, worst_difference
from anymodal.testing_checkpoints_blip import (
    QUERIES,
    make_blip2,
    make_blip2_t5,
    make_instructblip,
    make_minigpt4,
)
from anymodal.types import Answer, Packet, Tokens

MOST = 24  # tokens of an answer
QUESTION = "What is happening in this picture?"


def noise(count: int, seed: int, px: int = 10) -> list[np.ndarray]:
    """Frames of coloured blocks, not of the model's size."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(px, 0).repeat(px, 1) for _ in range(count)]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[int, Path]:
    """By the number of frames: a picture, and a clip of one a second, to the last bit."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(noise(4, 5)[0]).save(folder / "one.png")
    make_video(folder / "four.mkv", noise(4, 5), rate_hz=1, codec="ffv1", pixel_format="bgr0")
    return {1: folder / "one.png", 4: folder / "four.mkv"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {"opt": make_blip2(root / "opt"), "t5": make_blip2_t5(root / "t5", seed=1),
            "instruct": make_instructblip(root / "instruct"), "video": make_instructblip(root / "video", video=True),
            "minigpt4": make_minigpt4(root / "minigpt4")}


def agent_of(folder: Path, name: str = "", **prompt) -> Agent:
    """A checkpoint by its own bundle, or by that of a name; answers are short, and a log keeps tokens as they are made."""
    bundle = load_bundle(folder) if not name else Bundle(read_spec(configs_dir() / f"{name}.yaml")[0], folder)
    spec = bundle.spec.model_copy(update={"dtype": "float32", "prompt": bundle.spec.prompt.model_copy(
        update={"max_answer_tokens": MOST})})
    return Agent(replace(bundle, spec=spec))


def pixels(folder: Path, count: int) -> torch.Tensor:
    return BlipImageProcessorPil.from_pretrained(folder)(noise(4, 5)[:count], return_tensors="pt").pixel_values


def monolithic(folder: Path, count: int, text: str, marker: str = "<image>") -> dict[str, torch.Tensor]:
    """As transformers' processors of this line: the markers, then the text as the tokenizer begins it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(marker * QUERIES * count, add_special_tokens=False).input_ids + tokenizer(text).input_ids
    return {"pixel_values": pixels(folder, count), "input_ids": torch.tensor([ids])}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("kind", "bundle", "text"), [
    ("opt", "blip2-opt-2.7b", f"Question: {QUESTION} Answer:"),
    ("t5", "blip2-flan-t5-xl", f"Question: {QUESTION} Short answer:")])
def test_blip2_says_what_transformers_says(folders, media, kind, bundle, text, count) -> None:
    folder = folders[kind]
    model = transformers.Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    agent = agent_of(folder)
    assert agent.spec.name == bundle
    inputs = monolithic(folder, count, text)
    assert worst_difference(agent, media[count], QUESTION, model, inputs, most=MOST) < 1e-4
    ids, _ = reference_answer(model, inputs, most=MOST)
    answer = agent.ask(media[count], QUESTION)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # </s> ends an answer here, over OPT there only a newline does
    ids = ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids
    assert answer.text == tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0].strip() and answer.text
    assert answer.windows_seen == count


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_blip2_in_a_stream_says_the_same(folders, media, kind) -> None:
    agent = agent_of(folders[kind])
    with agent.open() as session:
        session.feed(media[4])
        session.wait()
        assert session.ask(QUESTION).text == agent.ask(media[4], QUESTION).text
        assert session.ask(QUESTION, at_s=1.0).text == agent.ask(media[1], QUESTION).text


# --- InstructBLIP: its Q-Former reads the question


def instructed(folder: Path, count: int, question: str, video: bool = False) -> dict[str, torch.Tensor]:
    asked = AutoTokenizer.from_pretrained(folder / "qformer_tokenizer")(question, return_tensors="pt")
    inputs = monolithic(folder, count, question, "<video>" if video else "<image>")
    rows = 1 if video else count
    return {**inputs, "pixel_values": inputs["pixel_values"][None] if video else inputs["pixel_values"],
            "qformer_input_ids": asked.input_ids.expand(rows, -1),
            "qformer_attention_mask": asked.attention_mask.expand(rows, -1)}


def asked_logits(agent: Agent, path: Path, question: str, ids: list[int]) -> torch.Tensor:
    """Logits (len(ids) + 1, V) of an answer that is made to say `ids`."""
    mind, perceive, recent = agent.bundle.mind, Perceive(agent.perception), Recent(agent.spec)
    clip = new_clip(path, None, None)
    percepts = [p for window in agent.source.push(clip) for p in perceive.push((clip.session, window))]
    recent.note([*percepts, *perceive.close()])
    looked_at = pooled(agent.perception, question, recent.choose(), seen=True)
    embeds = [torch.from_numpy(t.embeds) for p in reversed(looked_at) for t in p.tokens]
    asked = mind._embed(torch.tensor(mind.layout.question(question)))
    with torch.inference_mode():
        forks = mind.open().trunk.fork([Rows(torch.cat([*embeds, asked]))], room=len(ids) + 1)
        found = [forks.logits[0]] + [forks.step(torch.tensor([i]))[0] for i in ids]
    return torch.stack(found)


@pytest.mark.parametrize(("kind", "count"), [("instruct", 1), ("instruct", 4), ("video", 4)])
def test_instructblip_says_what_transformers_says(folders, media, kind, count) -> None:
    folder, video = folders[kind], kind == "video"
    name = "InstructBlipVideo" if video else "InstructBlip"
    model = getattr(transformers, f"{name}ForConditionalGeneration").from_pretrained(folder).eval()
    agent = agent_of(folder)
    assert agent.spec.name == ("instructblipvideo-vicuna-7b" if video else "instructblip-vicuna-7b")
    for question in (QUESTION, "Where is the red circle now?"):
        inputs = instructed(folder, count, question, video)
        ids, logits = reference_answer(model, inputs, most=MOST)
        own = asked_logits(agent, media[count], question, ids[:-1])
        assert (own - logits).abs().max() < 1e-4 and own.argmax(-1).tolist() == ids
        answer = agent.ask(media[count], question)
        assert answer.text == AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True).strip()
        assert answer.text and answer.windows_seen == count


@pytest.fixture(scope="module")
def instruct(folders) -> Agent:
    return agent_of(folders["instruct"])


def test_a_stream_pools_its_newest_windows_by_the_question(folders, media, instruct) -> None:
    """Also as of an earlier time; and the Q-Former does read the question."""
    with instruct.open() as session:
        session.feed(media[4])
        session.wait()
        for question in (QUESTION, "Where is the red circle now?"):
            assert session.ask(question).text == instruct.ask(media[4], question).text
            assert session.ask(question, at_s=1.0).text == instruct.ask(media[1], question).text
    frames = [Percept("s", 0, 0.0, 1.0, (instruct.perception.encode("s", [w])[0][0],))
              for w in instruct.source.push(new_clip(media[1], None, None))]
    one, other = (instruct.perception.pool(q, frames)[0].tokens[0].embeds for q in (QUESTION, "Where?"))
    assert one.shape == other.shape == (QUERIES, 48) and np.abs(one - other).max() > 1e-3


def test_actors_pool_where_the_features_are(folders, media, instruct) -> None:
    """The hosts of perception and mind, without a cluster between them: the percepts that they exchange have no tokens."""
    from actors.mind import MindActor
    from actors.perception import PerceptionActor
    from actors.runtime import read_runtime

    runtime = read_runtime(instruct.spec)
    source = Source(instruct.spec)

    async def run() -> tuple[list[Percept], Answer]:
        perception, mind = (kind(str(folders["instruct"]), runtime) for kind in (PerceptionActor, MindActor))
        await mind.open("s")
        windows = list(source.push(new_clip(media[4], None, None)))
        seen = await perception.encode("s", windows)
        assert await mind.watch(list(seen)) == [None] * 4
        chosen, some = await mind.recent("s")
        found = await perception.pool(QUESTION, chosen)
        assert some and len(found) == 4
        await mind.ask([Question("s", 0, QUESTION, None, 4, tuple(found))])
        pieces = []
        while not (pieces and isinstance(pieces[-1][1], Answer)):
            pieces += await mind.read("s")
        await mind.close("s")
        return list(seen), pieces[-1][1]

    seen, answer = asyncio.run(run())
    assert all(t.features and not len(t.embeds) for p in seen for t in p.tokens)
    assert answer.text.startswith(instruct.ask(media[4], QUESTION).text)  # that agent is held to fewer tokens


def test_an_unbounded_stream_stays_bounded(folders) -> None:
    """However long it is: the memory has one entry, perception the newest windows, and a question sees `show` of these."""
    agent = agent_of(folders["instruct"])
    frames = noise(40, 3, px=2)
    with agent.open() as session:
        for second, frame in enumerate(frames):
            session.push(Packet("video", "video", float(second), frame, 1.0))
        session.flush()
        asked = agent.spec.asked
        assert [p.index for p in session._recent.choose()] == list(range(39, 39 - asked.show, -1))
        answer = session.ask(QUESTION)
        assert answer.windows_seen == 40 and answer.text
        (entry,) = session._state.caught_up().memory.entries
        assert (entry.first, entry.last, entry.frames, entry.soft_tokens) == (0, 39, 40, 0)
        with pytest.raises(QuestionError, match="of the windows that this one may see none are kept") as refused:
            session.ask(QUESTION, at_s=40.0 - asked.keep)
        assert "ask about the last 16 s" in str(refused.value)
        with pytest.raises(QuestionError, match="cannot watch for standing rules"):
            session.rules.add("tell me when a bell rings")


def test_a_session_that_was_reopened_says_what_it_cannot_see(instruct, media, tmp_path) -> None:
    with instruct.open(media[4], log=tmp_path / "log.db") as session:
        session.wait()
    with instruct.reopen(tmp_path / "log.db") as session, pytest.raises(QuestionError, match="none are kept any more"):
        session.ask(QUESTION)
    with instruct.reopen(tmp_path / "log.db", write=False) as session, pytest.raises(QuestionError, match="for reading"):
        session.ask(QUESTION)


def test_windows_are_chosen_newest_first_or_spread(instruct) -> None:
    tokens = Tokens("s", "video", 0, "video", 0.0, 1.0, np.zeros((0, 4), np.float32), features="x")
    spec = instruct.spec.model_copy(update={"asked": instruct.spec.asked.model_copy(update={"keep": 10, "show": 4})})
    spread = spec.model_copy(update={"asked": spec.asked.model_copy(update={"spread": True})})
    newest, even = Recent(spec), Recent(spread)
    for recent in (newest, even):
        recent.note([Percept("s", i, float(i), i + 1.0, (tokens,)) for i in range(12)])
        recent.note([Percept("s", 12, 12.0, 13.0, ())])  # nothing came
    assert [p.index for p in newest.choose()] == [11, 10, 9, 8]
    assert [p.index for p in newest.choose(5)] == [5, 4, 3, 2]
    assert [p.index for p in even.choose()] == [10, 8, 5, 3]
    assert newest.choose(1) == even.choose(1) == []


def test_features_are_kept_up_to_a_number() -> None:
    kept = Kept(2)
    names = [kept.put("video", torch.full((1, 2, 3), float(i)), torch.ones(1, dtype=torch.bool)) for i in range(3)]
    assert kept.get(names[0]) is None and len(kept) == 2 and kept.get(names[2])[1][0, 0, 0] == 2


def test_tokens_that_do_not_fit_beside_a_question_are_told(folders, media) -> None:
    agent = agent_of(folders["instruct"])
    tight = agent.spec.memory.model_copy(update={"recalled_tokens": 15})
    small = Agent(replace(agent.bundle, spec=agent.spec.model_copy(update={"memory": tight})))
    with pytest.raises(ConfigError, match="16 tokens, memory.recalled_tokens is 15"):
        small.ask(media[4], QUESTION)


# --- MiniGPT-4: three checkpoints


def test_minigpt4_says_what_its_parts_say(folders, media) -> None:
    """No class of transformers has it: BLIP-2's tower and Q-Former, its own linear layer, then Vicuna by embeddings."""
    folder, count = folders["minigpt4"], 1
    agent = agent_of(folder, "minigpt4-vicuna-7b")
    blip = transformers.Blip2ForConditionalGeneration.from_pretrained(folder / "blip2").eval()
    vicuna = transformers.LlamaForCausalLM.from_pretrained(folder / "vicuna").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "vicuna")
    own = torch.load(folder / "prerained_minigpt4_7b.pth", weights_only=True)["model"]
    with torch.inference_mode():
        states = blip.get_image_features(pixels(folder / "blip2", count)).qformer_outputs.last_hidden_state
        soft = torch.nn.functional.linear(states, own["llama_proj.weight"], own["llama_proj.bias"])
        prompt = ("Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it "
                  f"to you. Please answer my questions.###Human: <Img>|</Img> {QUESTION}###Assistant:").split("|")
        ids = [tokenizer(text, add_special_tokens=i == 0, return_tensors="pt").input_ids for i, text in enumerate(prompt)]
        embed = vicuna.get_input_embeddings()
        embeds = torch.cat([embed(ids[0]), soft.flatten(0, 1)[None], embed(ids[1])], 1)
    inputs = {"inputs_embeds": embeds}
    assert worst_difference(agent, media[count], QUESTION, vicuna, inputs, most=MOST) < 1e-4
    answer = agent.ask(media[count], QUESTION)
    said = tokenizer.decode(reference_answer(vicuna, inputs, most=MOST)[0], skip_special_tokens=True)
    assert answer.text == said.split("###")[0].strip() and answer.text
    assert agent.ask(media[4], QUESTION).windows_seen == 4


def test_each_part_of_minigpt4_reads_its_own_files(folders) -> None:
    agent = agent_of(folders["minigpt4"], "minigpt4-vicuna-7b")
    reports = agent.bundle.published.reports
    assert reports["language model"].files == ("pytorch_model.bin",)
    assert not any(key.startswith("language_model.") for r in reports.values() for key in r.read)
    assert {"llama_proj.weight", "llama_proj.bias", "query_tokens"} <= set(reports["video adapter"].read)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(folders, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_blip2(tmp_path / "opt", shards=1)
    state = load_file(folder / "model.safetensors")
    key = "qformer.encoder.layer.1.output_query.dense.weight"
    save_file({k: v for k, v in state.items() if k != key}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="no tensor for the video adapter's 'qformer.encoder.layer.1.output_query"):
        _ = load(folder).perception


def test_one_picture_adapter_without_its_tokenizer_is_refused(folders, media) -> None:
    agent = agent_of(folders["instruct"])
    spec = agent.spec.model_copy(update={"asked": None})
    with pytest.raises(ConfigError, match="reads the question, and the bundle does not say how"):
        Agent(replace(agent.bundle, spec=spec)).ask(media[1], QUESTION)
