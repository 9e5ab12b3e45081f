"""`anymodal models` tells what there is under which licence; `anymodal pull` brings it whole or says why not."""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from anymodal.config import shipped_bundles
from anymodal.errors import ConfigError
from anymodal.models import lacking, locate, published_bundles, shipped
from anymodal.pull import chosen, sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# --- models ----------------------------------------------------------------------------------------------------------

def test_every_bundle_is_listed_with_its_licence_and_size(cli):
    ran = cli("models", "--json")
    rows = {row["name"]: row for row in json.loads(ran.out)}
    assert ran.code == 0 and set(rows) == set(shipped_bundles())
    assert rows["tiny"]["here"] == "yes" and rows["tiny"]["licence"] == "Apache-2.0"
    for name, (spec, _) in published_bundles().items():
        row = rows[name]
        assert row["checkpoint"] == spec.checkpoint.id and row["modalities"] == list(spec.modalities)
        assert row["licence"] != "unknown" and row["size_gb"] > 0.1, name


def test_a_non_commercial_licence_is_told_in_plain_words(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = cli("models").out.splitlines()
    for model in shipped():
        line = next(line for line in lines if line.split()[:1] == [model.name])
        assert ("NOT FOR COMMERCIAL USE" in line) == model.non_commercial
        assert model.licence[:20] in line


def test_a_licence_that_forbids_commercial_use_is_marked():
    for spec, _ in published_bundles().values():
        if any(word in spec.checkpoint.licence for word in ("BY-NC", "non-commercial", "research only")):
            assert spec.checkpoint.non_commercial, spec.name


def test_what_is_not_whole_is_not_here(tmp_path):
    assert lacking(tmp_path) == ["weights"]
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert lacking(tmp_path) == ["model-00002-of-00002.safetensors"]
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"")
    assert lacking(tmp_path) == []


# --- what is pulled --------------------------------------------------------------------------------------------------

def test_a_name_or_an_id_gives_what_the_bundle_reads():
    for name, (spec, _) in published_bundles().items():
        found = sources(name)
        assert found == sources(spec.checkpoint.id) and found[0] == (spec.checkpoint.id, spec.checkpoint.files)
        assert {repo for repo, _ in found[1:]} == set(spec.checkpoint.others.values()) - {spec.checkpoint.id}
    assert sources("llava-hf/llava-1.5-13b-hf") == [("llava-hf/llava-1.5-13b-hf", ())] and sources("tiny") == []
    with pytest.raises(ConfigError, match="did you mean 'llava-1.5-7b'"):
        sources("llava-1.5-7")


@pytest.mark.parametrize(("names", "kept"), [
    (["config.json", "model.safetensors", "pytorch_model.bin", "README.md", "tf_model.h5", "tokenizer.model"],
     {"config.json", "model.safetensors", "tokenizer.model"}),
    (["model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json", "pytorch_model-1-of-1.bin",
      "pytorch_model.bin.index.json", "consolidated.safetensors"],
     {"model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json"}),
    (["pytorch_model-1-of-1.bin", "pytorch_model.bin.index.json", "training_args.bin", "onnx/model.onnx"],
     {"pytorch_model-1-of-1.bin", "pytorch_model.bin.index.json"}),
    (["a.pth", "b.pth", "merges.txt"], {"a.pth", "b.pth", "merges.txt"}),
])
def test_of_a_repository_one_format_of_the_weights_is_pulled(names, kept):
    files = {name: SimpleNamespace(rfilename=name, size=len(name)) for name in names}
    assert {f.rfilename for f in chosen(files)} == kept


def test_patterns_of_a_bundle_choose_its_weights():
    files = {n: SimpleNamespace(rfilename=n, size=1) for n in ("a.pth", "b.pth", "config.json")}
    assert {f.rfilename for f in chosen(files, ["b.*"])} == {"b.pth", "config.json"}


# --- against a hub ---------------------------------------------------------------------------------------------------

class Hub:
    """A hub on this machine, as far as its client asks: the list of files with their hashes, and bytes in ranges."""

    def __init__(self, files):
        self.files, self.asked, self.cut, self.listed = files, [], {}, {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.do_GET(body=False)

            def do_GET(self, body=True):
                hub.answer(self, body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def siblings(self):
        for name, content in self.files.items():
            told = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
            if name.endswith(".safetensors"):
                told["lfs"] = {"sha256": self.listed.get(name) or hashlib.sha256(content).hexdigest(),
                               "size": len(content), "pointerSize": 130}
            else:
                told["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            yield told

    def answer(self, request, body):
        path = request.path.split("?")[0]
        if path.startswith("/api/models/own/model"):
            told = {"id": "own/model", "sha": COMMIT, "siblings": list(self.siblings())}
            self.send(request, 200, json.dumps(told).encode())
            return
        name = path.rpartition(f"/resolve/{COMMIT}/")[2]
        if not path.startswith("/own/model/resolve/") or name not in self.files:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        content, begin = self.files[name], 0
        if body and (wanted := request.headers.get("Range")):
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
        if body:
            self.asked.append((name, begin))
        digest = hashlib.sha256(content).hexdigest()
        extra = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"',
                 "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        if begin:
            extra["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.send(request, 206 if begin else 200, content[begin:], extra, body, self.cut.pop(name, None) if body else None)

    @staticmethod
    def send(request, status, content, extra=(), body=True, cut=None):
        request.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **dict(extra)}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            request.close_connection = True


@pytest.fixture
def hub():
    found = Hub({"config.json": b'{"model_type": "llava"}', "model.safetensors": os.urandom(24_000_000),
                 "pytorch_model.bin": b"not wanted", "tokenizer.json": b"{}"})
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def pulled(cli, tmp_path, monkeypatch):
    """`anymodal pull` against an address, with a cache of its own: the hub's client has read its settings already."""
    import huggingface_hub.constants as settings

    for key, value in {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
                       "HF_HUB_DISABLE_TELEMETRY": True}.items():
        monkeypatch.setattr(settings, key, value)
    monkeypatch.setenv("NO_PROXY", "*")

    def call(address, name="own/model", offline=False):
        monkeypatch.setattr(settings, "ENDPOINT", address)
        monkeypatch.setattr(settings, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(settings, "HF_HUB_OFFLINE", offline)
        return cli("pull", name)

    return call


@pytest.fixture
def snapshot(tmp_path):
    return tmp_path / "hub" / "models--own--model" / "snapshots" / COMMIT


def test_a_pull_brings_what_is_read_with_progress_and_is_then_found(pulled, hub, snapshot):
    ran, folder = pulled(hub.address), snapshot
    assert ran.code == 0, ran
    assert ran.out.strip() == str(folder)
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert "own/model 24/24 MB" in ran.err
    assert locate("own/model") == folder
    hub.asked.clear()
    assert pulled(hub.address).code == 0
    assert hub.asked == [], "what is there is not fetched again"


def test_a_pull_that_was_cut_goes_on_where_it_was(pulled, hub, snapshot):
    hub.cut["model.safetensors"] = 15_000_000
    first = pulled(hub.address)
    ran = first if first.code == 0 else pulled(hub.address)
    assert ran.code == 0, ran
    begins = [begin for name, begin in hub.asked if name == "model.safetensors"]
    assert begins[0] == 0 and 0 < begins[-1] <= 15_000_000, begins
    assert (snapshot / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_file_that_is_not_what_the_hub_lists_is_told_and_removed(pulled, hub, snapshot):
    hub.listed["model.safetensors"] = "f" * 64
    ran = pulled(hub.address)
    assert ran.code == 5 and "are not those that the hub lists" in ran.err
    assert not (snapshot / "model.safetensors").exists()


@pytest.mark.parametrize(("offline", "wanted"), [
    (False, "the hub at http://127.0.0.1:9 cannot be reached for llava-hf/llava-1.5-7b-hf"),
    (True, "cannot be pulled: HF_HUB_OFFLINE is set"),
])
def test_offline_it_says_so_at_once(pulled, offline, wanted):
    ran = pulled("http://127.0.0.1:9", "llava-1.5-7b", offline=offline)
    lines = ran.err.splitlines()
    assert ran.code == 5 and len(lines) == 2 and wanted in lines[1] and "--model" in lines[1]
    assert lines[0] == "llava-1.5-7b: Llama 2 Community License.", "the licence is told first"


def test_an_id_that_the_hub_does_not_have_is_told(pulled, hub):
    ran = pulled(hub.address, "own/nothing")
    assert ran.code == 5 and "has no 'own/nothing'" in ran.error
