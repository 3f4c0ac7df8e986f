"""Files that others made, names that hold code, archives and hosts that are not what they say."""

import pickle
import socket
import tarfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup

from lib.core import cache, paths
from lib.core.errors import StudyError
from lib.data import download, mirror
from lib.execute import html
from lib.execute.cleaning import clean
from lib.masks import rembg_models
from lib.models.embedder import Embedder, load_weights
from lib.training import fit as fitting

TAGS = ["<script>alert(1)</script>", "<b>bold", "<img src=x onerror=alert(1)>", "</td><iframe>"]


class _Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.trace,))


@pytest.mark.fault(
    "foreign/pickle",
    "a pickle with code in place of weights, checkpoint, cached tensors, half-done masks",
    "a file that would leave a trace when it is run",
    "refused, file named (cached tensors: computed again); the code does not run",
)
def test_a_pickle_is_refused_and_not_run(home: Path, recipe) -> None:
    trace = home / "it-ran"
    evil = pickle.dumps(_Bomb(trace))
    pickle.loads(evil)
    trace.unlink()  # it does work
    (home / "a.safetensors").write_bytes(evil)
    with pytest.raises(StudyError, match="a.safetensors does not hold weights"):
        load_weights(Embedder("tiny", 4), home / "a.safetensors")
    (home / "last.pt").write_bytes(evil)
    with pytest.raises(StudyError, match="last.pt is no whole checkpoint"):
        fitting._checkpoint(home / "last.pt", torch.device("cpu"))
    torch.save(_Bomb(trace), home / "last.pt")
    with pytest.raises(StudyError, match="last.pt is no whole checkpoint"):
        fitting._checkpoint(home / "last.pt", torch.device("cpu"))
    cached = paths.StudyPaths("s").scratch / "kind" / "key.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(evil)
    one = {"x": torch.ones(3)}
    assert torch.equal(cache.kept("s", "kind", "key", lambda: one)["x"], one["x"])
    for chunk in (evil, None):
        file = home / "0.npz"
        if chunk:
            file.write_bytes(chunk)
        else:
            np.savez(file, np.array([_Bomb(trace)], dtype=object))
        with pytest.raises(StudyError, match="0.npz is damaged"):
            list(rembg_models._masks_in(file))
    assert not trace.exists()


@pytest.mark.fault(
    "foreign/names",
    "HTML and scripts in names, in tables and sentences of a report",
    "tags as class names in a styled table, a plain one and a sentence",
    "shown as text on the page and in the executed notebook",
)
def test_tags_in_names_are_text_in_every_output() -> None:
    table = pd.DataFrame({"class": TAGS, "value": range(len(TAGS))})
    data = [
        {"text/html": table.style.hide(axis="index").format(precision=1).to_html()},
        {"text/html": table.to_html()},
        {"text/markdown": f"The worst class is **{TAGS[0]}**, then {TAGS[2]}."},
    ]
    cell = nbformat.v4.new_code_cell("x")
    cell.outputs = [nbformat.v4.new_output("display_data", one) for one in data]
    made = clean(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    for output in made[:2]:
        soup = BeautifulSoup(output.data["text/html"], "html.parser")
        assert not soup(["script", "b", "img", "iframe"]) and TAGS[0] in soup.text
    assert "<" not in made[2].data["text/markdown"]
    assert html.harmless(data[1]["text/html"]) == data[1]["text/html"]  # pandas escaped these


def test_tables_without_tags_in_names_keep_their_bytes() -> None:
    table = pd.DataFrame({"a < b": [1.5, 2], "c": ["x & y", "↑"]}, index=["p", "q"])
    for text in (table.style.set_caption("d").to_html(), table.to_html()):
        assert html.harmless(text) == text
    assert html.harmless_markdown("1 < 2, **x** <- y") == "1 < 2, **x** <- y"


@pytest.mark.fault(
    "network/gone",
    "no network at all",
    "no name can be looked up",
    "one sentence at once: what was wanted, where to put it by hand",
)
def test_no_network_is_one_sentence(home: Path, monkeypatch) -> None:
    def nobody(*_args: object, **_more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    archive = download.Archive("http://example.org/x.zip", "0" * 32)
    with pytest.raises(StudyError, match="no connection.* put the file into .*by hand"):
        download.download(archive, home)


@pytest.mark.fault(
    "network/links",
    "archive with hard links and links to absolute places",
    "tar with such members",
    "refused; nothing is left",
)
@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../x"])
def test_links_to_the_outside_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as members:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, target
        members.addfile(member)
    with pytest.raises(StudyError, match="a.tar"):
        mirror.extract(tmp_path / "a.tar", tmp_path / "deep" / "out")
    assert not (tmp_path / "deep" / "out").exists()


@pytest.mark.fault(
    "network/tar-bomb",
    "tar bomb",
    "50 MB of zeros in a small tgz",
    "refused before unpacking",
)
def test_a_tar_that_swells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(50_000_000))
    with tarfile.open(tmp_path / "a.tgz", "w:gz", compresslevel=9) as members:
        members.add(tmp_path / "zeros", "zeros")
    with pytest.raises(StudyError, match="over a hundred times its own"):
        mirror.extract(tmp_path / "a.tgz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
