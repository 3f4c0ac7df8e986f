"""Downloads against a server in this test: cut, wrong, slow, absent, redirected in a circle."""

import hashlib
import sys
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lib.core.errors import StudyError
from lib.data import download
from lib.data.download import Archive, Drive, Kaggle

BODY = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/cut stops every answer after 131,072 bytes (two pieces); the others do what they say."""

    asked: list[tuple[str, str | None]] = []
    failures = 0

    def do_GET(self) -> None:
        name = self.path.strip("/").split(".")[0]
        self.asked.append((name, self.headers.get("Range")))
        getattr(self, name)()

    def _send(self, body: bytes, upto: int | None = None, ranges: bool = True) -> None:
        start = 0
        if ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:] if upto is None else body[start : start + upto])

    def whole(self) -> None:
        self._send(BODY)

    def cut(self) -> None:
        self._send(BODY, upto=131_072)

    def forgetful(self) -> None:  # cut once, and knows no ranges
        self._send(BODY, upto=131_072 if len(self.asked) == 1 else None, ranges=False)

    def wrong(self) -> None:
        self._send(BODY[::-1])

    def absent(self) -> None:
        self.send_error(404)

    def tired(self) -> None:
        if len(self.asked) < 3:
            self.send_error(503)
        else:
            self._send(BODY)

    def slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"12345")
        self.wfile.flush()
        time.sleep(1.5)

    def loop(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/loop.bin")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(download, "PAUSE", 0.0)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_a_whole_file_arrives_once(server: str, tmp_path: Path) -> None:
    archive = Archive(f"{server}/whole.bin?download=1", MD5)
    path = download.download(archive, tmp_path / "deep")
    assert path == tmp_path / "deep" / "whole.bin" and path.read_bytes() == BODY
    download.download(archive, tmp_path / "deep")
    assert len(Handler.asked) == 1
    assert list((tmp_path / "deep").iterdir()) == [path]


@pytest.mark.fault(
    "network/cut",
    "download cut in the middle",
    "a server that stops every answer",
    "goes on where it stopped; md5 right",
)
def test_a_cut_download_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    path = download.download(Archive(f"{server}/cut.bin", MD5), tmp_path)
    assert path.read_bytes() == BODY
    assert [asked for _, asked in Handler.asked] == [None, "bytes=131072-", "bytes=262144-"]


@pytest.mark.fault(
    "killed/download",
    "download killed",
    "half a file on disk",
    "goes on behind it; md5 right",
)
def test_a_killed_download_goes_on_in_the_next_run(server: str, tmp_path: Path) -> None:
    (tmp_path / "whole.bin.part").write_bytes(BODY[:123_456])
    assert download.download(Archive(f"{server}/whole.bin", MD5), tmp_path).read_bytes() == BODY
    assert Handler.asked == [("whole", "bytes=123456-")]


def test_a_part_that_is_already_whole_is_taken(server: str, tmp_path: Path) -> None:
    (tmp_path / "whole.bin.part").write_bytes(BODY)
    assert download.download(Archive(f"{server}/whole.bin", MD5), tmp_path).read_bytes() == BODY


@pytest.mark.fault(
    "network/no-ranges",
    "server that cannot go on",
    "a server without ranges",
    "starts over; md5 right",
)
def test_a_server_without_ranges_starts_over(server: str, tmp_path: Path) -> None:
    path = download.download(Archive(f"{server}/forgetful.bin", MD5), tmp_path)
    assert path.read_bytes() == BODY and len(Handler.asked) == 2


@pytest.mark.fault(
    "network/wrong",
    "wrong bytes",
    "a server that turns the file round",
    "refused, both md5 named; nothing is left",
)
def test_wrong_bytes_name_both_sums_and_leave_nothing(server: str, tmp_path: Path) -> None:
    seen = hashlib.md5(BODY[::-1]).hexdigest()
    with pytest.raises(StudyError, match=f"md5 {seen}, expected {MD5}"):
        download.download(Archive(f"{server}/wrong.bin", MD5), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(
    "network/wrong-part",
    "wrong half of a download on disk",
    "a foreign part",
    "refused, then fetched anew",
)
def test_a_wrong_part_does_not_poison_the_next_run(server: str, tmp_path: Path) -> None:
    (tmp_path / "whole.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(StudyError, match="run again"):
        download.download(Archive(f"{server}/whole.bin", MD5), tmp_path)
    assert download.download(Archive(f"{server}/whole.bin", MD5), tmp_path).read_bytes() == BODY


@pytest.mark.fault(
    "disk/archive",
    "damaged archive on disk",
    "one byte taken off",
    "refused, file named",
)
def test_a_damaged_file_on_disk_is_not_used(server: str, tmp_path: Path) -> None:
    (tmp_path / "whole.bin").write_bytes(BODY[:-1])
    with pytest.raises(StudyError, match=f"whole.bin has md5 .* expected {MD5}"):
        download.download(Archive(f"{server}/whole.bin", MD5), tmp_path)
    assert not Handler.asked


@pytest.mark.fault(
    "network/refused",
    "404 and redirect loop",
    "a server that does so",
    "one sentence; folder and md5 for doing it by hand",
)
@pytest.mark.parametrize(
    ("name", "words", "asked"),
    [("absent", "the server says 404", 1), ("loop", "redirects in a circle", 6)],
)
def test_refusals_in_words(server: str, tmp_path: Path, name: str, words: str, asked: int) -> None:
    with pytest.raises(StudyError, match=words) as error:
        download.download(Archive(f"{server}/{name}.bin", MD5), tmp_path)
    assert str(tmp_path) in str(error.value) and MD5 in str(error.value)
    assert len(Handler.asked) == asked


@pytest.mark.fault(
    "network/503",
    "server busy",
    "503 twice",
    "asked again",
)
def test_a_tired_server_is_asked_again(server: str, tmp_path: Path) -> None:
    path = download.download(Archive(f"{server}/tired.bin", MD5), tmp_path)
    assert path.read_bytes() == BODY and len(Handler.asked) == 3


@pytest.mark.fault(
    "network/silent",
    "server that falls silent",
    "no byte after the first",
    "stops after its time; what arrived is kept",
)
def test_a_server_that_falls_silent(server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.2))
    monkeypatch.setattr(download, "TRIES", 2)
    with pytest.raises(StudyError, match="What has arrived is kept"):
        download.download(Archive(f"{server}/slow.bin", MD5), tmp_path)


@pytest.mark.fault(
    "network/none",
    "no server",
    "connection refused",
    "one sentence within a second",
)
def test_no_network_is_one_sentence_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StudyError, match="no connection") as error:
        download.download(Archive("http://127.0.0.1:9/x.bin", MD5), tmp_path)
    assert time.monotonic() - start < 1 and "\n" not in str(error.value)


@pytest.mark.fault(
    "disk/room-download",
    "download larger than the room",
    "1,000 bytes free",
    "refused before the first byte",
)
def test_too_little_room_is_seen_before_the_first_byte(
    server: str, tmp_path: Path, monkeypatch
) -> None:
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr("lib.core.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StudyError, match="are free"):
        download.download(Archive(f"{server}/whole.bin", MD5), tmp_path)


def _library(monkeypatch: pytest.MonkeyPatch, name: str, function: str, does: object) -> None:
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**{function: does}))


def test_google_drive_by_its_library(tmp_path: Path, monkeypatch) -> None:
    def fetch(id: str, output: str, quiet: bool, resume: bool) -> None:
        assert id == "some-id" and resume
        Path(output).write_bytes(BODY)

    _library(monkeypatch, "gdown", "download", fetch)
    path = download.from_drive(Drive("some-id", "a.zip", MD5), tmp_path)
    assert path == tmp_path / "a.zip" and path.read_bytes() == BODY


@pytest.mark.fault(
    "network/page",
    "a page instead of the file",
    "library that writes HTML",
    "refused by md5",
)
def test_google_drive_gives_a_page_instead_of_the_file(tmp_path: Path, monkeypatch) -> None:
    page = lambda id, output, quiet, resume: Path(output).write_text("<html>quota</html>")  # noqa: E731
    _library(monkeypatch, "gdown", "download", page)
    with pytest.raises(StudyError, match=f"a.zip.part has md5 .* expected {MD5}"):
        download.from_drive(Drive("some-id", "a.zip", MD5), tmp_path)
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.fault(
    "network/quota",
    "Drive or Kaggle refuses",
    "library that raises",
    "says how to fetch it by hand",
)
def test_refusing_libraries_give_instructions(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise RuntimeError("quota exceeded")

    _library(monkeypatch, "gdown", "download", refuse)
    with pytest.raises(StudyError, match="quota exceeded.*in a browser as .*a.zip"):
        download.from_drive(Drive("some-id", "a.zip", MD5), tmp_path)
    _library(monkeypatch, "kagglehub", "dataset_download", refuse)
    with pytest.raises(StudyError, match="kaggle.com/datasets/owner/cars and unpack it into"):
        download.from_kaggle(Kaggle("owner/cars"), tmp_path / "cars196")


def test_kaggle_by_its_library(tmp_path: Path, monkeypatch) -> None:
    def fetch(handle: str, output_dir: str) -> None:
        assert handle == "owner/cars"
        (Path(output_dir) / "train").mkdir(parents=True)

    _library(monkeypatch, "kagglehub", "dataset_download", fetch)
    folder = download.from_kaggle(Kaggle("owner/cars"), tmp_path / "cars196")
    assert (folder / "train").is_dir() and len(list(tmp_path.iterdir())) == 1
