"""A study's pieces on many machines: handed out, refused, repeated; the serial run's bytes."""

import contextlib
import json
import pickle
import pickletools
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks import schedule
from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import digest, noted, write_json
from lib.core.stage import locked
from lib.data import prepare
from lib.data.store import Store
from lib.evaluation import measured
from lib.masks import rembg_models
from lib.run import grid, machines, pieces
from lib.run.machines import Cluster, Crew
from lib.run.pieces import Piece
from lib.training import study
from tests.masks.test_masks import OPTIONS
from tests.pipeline.tiny_study import Clone

distributed = pytest.importorskip("distributed")
ADDRESSES = socket.getaddrinfo  # tests of other files forbid the network; Dask asks for itself
SECTIONS = {part: {} for part in ("data", "masks", "train", "shift", "attention")}


# --- which pieces --------------------------------------------------------------------------------


def test_every_piece_comes_after_pieces_that_are_listed_before_it() -> None:
    known: set[str] = set()
    for piece in pieces.of_study(params.study("cub200")):
        if piece.kind != "check":
            assert set(piece.after) <= known
        known.add(piece.id)
    assert all(set(piece.after) <= known for piece in pieces.of_study(params.study("cub200")))


def test_the_pieces_of_an_uneven_study() -> None:
    sections = params.study("cub200")
    sections["train"] = {**sections["train"], "losses": ["triplet", "arcface"], "seeds": [3, 4, 5]}
    sections["shift"] = {
        **sections["shift"], "conditions": ["clean", "random_background", "own_background"],
        "draws": 4, "draws_control": 2,
    }  # fmt: skip
    found = pieces.of_study(sections)
    assert len({piece.id for piece in found}) == len(found)
    count = {kind: sum(piece.kind == kind for piece in found) for kind in pieces.KINDS}
    models, planned = 2 * 2 * 3, 1 + 4 + 1  # own_background has no chance in it
    assert count["model"] == models and count["embedding"] == (models + 1) * planned
    assert count["evaluation"] == count["attention"] == models + 1
    assert count["trunk"] == 2 * 3  # a condition an arm, and a seed
    by_id = {piece.id: piece for piece in found}
    one = by_id["evaluation/arcface-bgaugment-4"]
    assert "model/arcface-bgaugment-4" in one.after and "trunk/random_background-4" in one.after
    assert sum(name.startswith("embedding/arcface-bgaugment-4-") for name in one.after) == planned
    assert by_id["evaluation/none-untrained-0"].after == tuple(
        piece.id for piece in found if piece.given.get("model") == "none-untrained-0"
        and piece.kind == "embedding"
    )  # fmt: skip


def test_a_machine_is_sent_a_name_and_a_text() -> None:
    """The function goes by its name: no code of the client's travels to a worker."""
    sent = pickle.dumps(pieces.run)
    assert distributed.protocol.pickle.loads(sent) is pieces.run
    words = [argument for _, argument, _ in pickletools.genops(sent) if isinstance(argument, str)]
    assert words == ["lib.run.pieces", "run"]
    piece = Piece("embedding", "a-clean-0", {"model": "a", "condition": "clean", "draw": 0})
    text = pieces.text_of("tiny", piece, SECTIONS, carry=False)
    assert json.loads(text)["given"] == piece.given


# --- files that travel ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "data/scratch/../../lib/run/grid.py", "lib/run/grid.py", "params.yaml",
     "reports/tiny/index.html", "data/raw/tiny/a.png", "data/scratch/tiny"],
)  # fmt: skip
def test_a_file_from_elsewhere_is_written_nowhere_else(name: str) -> None:
    with pytest.raises(StudyError, match="no file of a piece"):
        pieces.inside(name)


def test_a_file_arrives_in_parts_and_whole(home: Path) -> None:
    content, name = bytes(range(256)) * 5, "data/masks/tiny/u2netp/pixels.u8"
    (home / "a").write_bytes(content)
    whole = {"size": len(content), "sha256": digest(home / "a")}
    assert not pieces.receive(name, 0, content[:700], whole)
    assert not (home / name).exists()
    assert pieces.receive(name, 700, content[700:], whole)
    assert (home / name).read_bytes() == content
    assert pieces.receive(name, 0, b"", whole)  # already there
    with pytest.raises(StudyError, match="sha256"):
        pieces.receive("data/masks/tiny/u2netp/b", 0, content[::-1], whole)
    assert not (home / "data/masks/tiny/u2netp/b").exists()


def test_written_files_are_noted_in_their_own_block_only(home: Path) -> None:
    write_json(home / "before.json", 0)
    with noted() as outer:
        write_json(home / "a.json", 0)
        with noted() as inner:
            write_json(home / "b.json", 0)
    write_json(home / "after.json", 0)
    assert [file.name for file in outer] == ["a.json"] and [f.name for f in inner] == ["b.json"]


# --- handing out, on a cluster of threads and a study of toys -------------------------------------


@pytest.fixture
def toys(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Pieces that write a file each, note their order, and fail as often as they are told."""
    made: list[str] = []

    def work(toy: pieces.Work) -> list[Path]:
        made.append(toy.name)
        if made.count(toy.name) <= toy.given.get("fails", 0):
            raise StudyError(f"{toy.name} stumbles")
        write_json(home / "data" / "scratch" / "toys" / f"{toy.name}.json", len(made))
        return []

    monkeypatch.setattr(pieces, "KINDS", dict.fromkeys(("model", "embedding"), work))
    monkeypatch.setattr(grid, "AGAIN", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", ADDRESSES)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def new(**more: object) -> grid.Grid:
            return grid.Grid(Crew(Cluster(client), "toys", **more), "toys", SECTIONS)

        yield SimpleNamespace(made=made, grid=new, client=client)


def toy(name: str, *after: str, **given: int) -> Piece:
    return Piece("model", name, given, tuple(f"model/{other}" for other in after))


def test_pieces_wait_for_what_they_need_and_are_found_by_the_next_run(toys) -> None:
    todo = [toy("c", "b"), toy("b", "a"), toy("a"), toy("d", "a", "b")]
    assert toys.grid().make(todo)
    assert toys.made[:2] == ["a", "b"] and sorted(toys.made) == ["a", "b", "c", "d"]
    assert toys.grid().make(todo) and len(toys.made) == 4
    (paths.ROOT / "data/scratch/toys/c.json").unlink()
    assert toys.grid().make([*todo, toy("e", "c")])
    assert toys.made[4:] == ["c", "e"]


def test_a_piece_that_fails_is_repeated_then_named_with_its_log(toys, capsys) -> None:
    one = toys.grid()
    todo = [toy("bad", fails=9), toy("later", "bad"), toy("last", "later"), toy("slow", fails=2)]
    assert not one.make([*todo, toy("good", "slow")])
    assert [toys.made.count(name) for name in ("bad", "slow", "good")] == [3, 3, 1]
    assert set(one.failed) == {"model/bad"} and one.left_out == ["model/later", "model/last"]
    assert grid.tell(one) == 1
    told = capsys.readouterr().err
    log = pieces.log_of("toys", "model/bad")
    assert str(log) in told and "bad stumbles" in told and "model/last" in told
    assert log.read_text().count("StudyError: bad stumbles") == 3


def test_a_piece_that_another_client_is_making_is_asked_for_again(toys) -> None:
    log = pieces.log_of("toys", "model/a")
    done = []
    with locked(log.with_suffix(".lock")) as free:
        assert free
        run = threading.Thread(target=lambda: done.append(toys.grid().make([toy("a"), toy("b")])))
        run.start()
        until = time.monotonic() + 20
        while toys.made != ["b"] and time.monotonic() < until:
            time.sleep(0.05)
        assert toys.made == ["b"]  # the other piece did not wait
    run.join(20)
    assert done == [True] and toys.made == ["b", "a"]


def test_what_travels_is_written_by_the_client(toys) -> None:
    one = toys.grid(carry=True)
    assert one.make([toy("a"), toy("b", "a")])
    result = pieces.run(pieces.text_of("toys", toy("a"), SECTIONS, carry=True))
    assert result["files"] == {"data/scratch/toys/a.json": b"3\n"}


def test_machines_of_other_code_are_refused_and_none_is_an_error(toys, monkeypatch) -> None:
    monkeypatch.setattr(machines, "GRACE", 0.0)
    one = toys.grid(own=pieces.identity() | {"torch": "0.4"})
    with pytest.raises(StudyError, match="torch .* instead of 0.4"):
        one.make([toy("a")])
    assert toys.made == []


def test_a_machine_has_one_piece_at_a_time_and_the_longest_kinds_go_first(toys, monkeypatch):
    """The cluster's one worker has two threads: Dask by itself would run two."""
    one, handed = toys.grid(), []
    submit = one._submit

    def watched(name: str, worker: str) -> object:
        handed.append(name)
        assert not one.running
        return submit(name, worker)

    monkeypatch.setattr(one, "_submit", watched)
    assert one.make([Piece("embedding", "b"), toy("a"), toy("c")])
    assert handed == ["model/a", "model/c", "embedding/b"]


def test_a_repeated_piece_finds_the_files_that_travelled_to_it_again(toys, monkeypatch, home):
    file, seen = home / "data" / "scratch" / "toys" / "a.json", []

    def work(toy: pieces.Work) -> list[Path]:
        if toy.name == "a":
            write_json(file, 1)
        else:
            seen.append(file.exists())
            file.unlink()
            if len(seen) < 3:
                raise StudyError("once more")
        return []

    monkeypatch.setattr(pieces, "KINDS", {"model": work})
    assert toys.grid(carry=True).make([toy("a"), toy("b", "a")])
    assert seen == [True, True, True]


def test_a_piece_whose_input_went_with_a_machine_is_handed_out_again_from_our_disk(home) -> None:
    """`b` runs on w2 and needs the files of `a`, which only w1 had."""
    crew = Crew(Cluster(None), "toys", carry=True, own={}, admitted={"w2"})
    one = grid.Grid(crew, "toys", SECTIONS)
    one._begin([toy("a"), toy("b", "a"), toy("c")])
    write_json(home / "data/scratch/toys/a.json", 1)
    one._take("model/a", {"outputs": ["data/scratch/toys/a.json"]})
    one.waiting = {}
    one.done = {"model/a": SimpleNamespace(status="lost")}
    cancelled = []
    futures = {
        name: SimpleNamespace(done=lambda: False, cancel=lambda name=name: cancelled.append(name))
        for name in "bc"
    }
    one.running = {"model/b": (futures["b"], "w2"), "model/c": (futures["c"], "w2")}
    one._find_lost()
    assert set(one.running) == {"model/c"} and set(one.soon) == {"model/b"} and cancelled == ["b"]
    assert one._travelling(one.done["model/a"]) == {"files": {"data/scratch/toys/a.json": b"1\n"}}
    assert not one.lost  # no machine died over it


PRELOAD = """
import os, signal, time
from pathlib import Path
from lib.core import paths
from lib.core.files import write_json
from lib.run import pieces

paths.ROOT = Path({home!r})

def work(toy):
    with open(paths.ROOT / "begun.txt", "a") as stream:
        stream.write(toy.name + " ")
    if toy.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    write_json(paths.ROOT / "data" / "scratch" / "toys" / (toy.name + ".json"), 1)
    return []

pieces.KINDS = {{"model": work}}
pieces.identity = dict
"""


@pytest.mark.slow
def test_a_piece_that_kills_its_worker_costs_no_other_piece(home, monkeypatch, capfd) -> None:
    monkeypatch.setattr(grid, "LOST", 2)
    monkeypatch.setattr(socket, "getaddrinfo", ADDRESSES)
    (home / "toys.py").write_text(PRELOAD.format(home=str(home)))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            memory_limit=0, preload=[str(home / "toys.py")], silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        one = grid.Grid(Crew(Cluster(client), "toys", own={}), "toys", SECTIONS)
        others = [f"good{n}" for n in range(12)]
        assert not one.make([toy("deadly"), toy("after", "deadly"), *map(toy, others)])
    begun = (home / "begun.txt").read_text().split()
    assert sorted(begun) == sorted(["deadly"] * 2 + others)
    assert set(one.failed) == {"model/deadly"} and one.left_out == ["model/after"]
    assert not one.tried and one.lost == {"model/deadly": 2}
    assert grid.tell(one) == 1
    told = capfd.readouterr().err
    assert "is gone (1 of 2)" in told and "2 workers were lost over it" in told


def test_time_left_counts_kinds_that_were_not_seen_yet() -> None:
    one = grid.Progress("s", grid.Counter(model=3, embedding=10))
    assert one.left(1) is None
    one.add(Piece("model", "a"), 2 * grid.USUAL["model"])
    rest = 2 * grid.USUAL["model"] + 10 * grid.USUAL["embedding"]
    assert one.left(1) == pytest.approx(2 * rest)  # here everything takes twice as long
    assert one.left(4) == pytest.approx(2 * rest / 4)


def test_the_simulated_schedule_of_a_grid_small_enough_to_draw() -> None:
    """Two machines: a(3) then c(4) on one, b(2) d(2) on the other; e(1) needs both ends."""
    rows = [("a", 3, ()), ("b", 2, ()), ("c", 4, ("a",)), ("d", 2, ("b",)), ("e", 1, ("c", "d"))]
    todo = [schedule.Job(name, "model", after, seconds) for name, seconds, after in rows]
    assert [schedule.simulate(todo, workers) for workers in (1, 2, 9)] == [12, 8, 8]
    first = [schedule.Job("x", "embedding", (), 1), schedule.Job("y", "model", (), 5)]
    assert schedule.simulate([*first, schedule.Job("z", "embedding", ("y",), 5)], 1) == 11
    assert schedule.simulate([*first, schedule.Job("z", "embedding", ("y",), 5)], 2) == 10


# --- masks as pieces ------------------------------------------------------------------------------


@pytest.fixture
def masked(toys, home, monkeypatch) -> SimpleNamespace:
    """A rendered study of 12 images whose masks, by u2netp, are to be made in chunks of five."""
    prepare.prepare_images("drawn", "rendered", 40, OPTIONS)
    predicted: list[tuple] = []

    def predict(name: str, image: Image.Image) -> Image.Image:
        predicted.append(image.size)
        return image.convert("L")

    steps: list[str] = []
    sections = SECTIONS | {"masks": {"source": "u2netp+eroded"}, "train": {"trunk": "small"}}
    monkeypatch.setattr(rembg_models, "predict", predict)
    monkeypatch.setattr(rembg_models, "fetch", lambda name: predicted.append(name))
    monkeypatch.setattr(rembg_models, "CHUNK", 5)
    monkeypatch.setattr(pieces, "KINDS", pieces.KINDS | {"masks": pieces._masks})
    monkeypatch.setattr(pieces, "of_study", lambda *_: [toy("a")])
    monkeypatch.setattr(pieces, "prepared", lambda trunk: None)
    monkeypatch.setattr(params, "study", lambda name: sections)
    monkeypatch.setattr(params, "everything", lambda: {"run": ["drawn"]})
    monkeypatch.setattr(grid.check_studies, "check", lambda name: sections)
    monkeypatch.setattr(grid, "to_do", lambda name: ["masks", "train", "shift", "attention"])
    monkeypatch.setattr(grid, "step", lambda study, stage: steps.append(stage))

    @contextlib.contextmanager
    def connect() -> Iterator[Cluster]:
        yield Cluster(toys.client)

    return SimpleNamespace(predicted=predicted, steps=steps, connect=connect, made=toys.made)


def test_masks_are_made_as_pieces_and_the_step_finds_them(masked, monkeypatch) -> None:
    assert grid.bring("drawn", masked.connect, foreign=True) == 0
    assert masked.steps == ["masks", "train", "shift", "attention"] and masked.made == ["a"]
    store = Store.open(paths.StudyPaths("drawn").prepared / "images")
    assert masked.predicted[0] == "u2netp" and len(masked.predicted) == 1 + 12
    found = list(rembg_models.rembg_masks("u2netp", "drawn", store, 1))
    assert len(masked.predicted) == 1 + 12 + 1  # fetched again, and no image looked at again
    for row, mask in enumerate(found):
        wanted = np.asarray(Image.fromarray(store.image(row)).convert("L"))
        assert mask.shape == wanted.shape and np.abs(mask.astype(int) - wanted).mean() < 12
    assert grid.bring("drawn", masked.connect, foreign=True) == 0  # nothing is left to be made
    assert masked.made == ["a"] and len(masked.predicted) == 1 + 12 + 2


def test_masks_go_by_names_in_our_folder_and_by_whole_paths_outside(masked, home) -> None:
    chunks = pieces.of_masks("drawn", "u2netp+eroded")
    assert [len(chunk.given["files"]) for chunk in chunks] == [5, 5, 2]
    assert all((home / name).is_file() for chunk in chunks for name in chunk.given["files"])
    assert not any(name.startswith("/") for chunk in chunks for name in chunk.given["files"])
    assert pieces._name(Path("/mirror/a.jpg")) == "/mirror/a.jpg"
    assert pieces.of_masks("drawn", "true") == []  # the step makes these in a moment


def test_on_one_machine_and_without_a_shared_folder_the_step_makes_the_masks(
    masked, monkeypatch
) -> None:
    assert grid.bring("drawn", masked.connect, foreign=False) == 0
    assert masked.steps[0] == "masks" and masked.predicted == []
    sent = []
    monkeypatch.setattr(Crew, "send", lambda crew, workers: sent.append(set(workers)))
    monkeypatch.setattr(Crew, "_seen", lambda crew, workers: dict.fromkeys(workers, False))
    assert grid.bring("drawn", masked.connect, foreign=True) == 0
    assert masked.steps[4:] == ["masks", "train", "shift", "attention"]
    assert masked.predicted == ["u2netp"]
    assert len(sent) == 2 and len(sent[1]) == 1  # at admission, and once more with the masks


def test_masks_that_fail_end_it_before_the_step(masked, monkeypatch, capsys) -> None:
    def fails(*_: object) -> None:
        raise StudyError("no such photograph")

    monkeypatch.setattr(rembg_models, "predict", fails)
    assert grid.bring("drawn", masked.connect, foreign=True) == 1
    assert masked.steps == [] and masked.made == []
    assert "masks/u2netp-0000000 was given up: no such photograph" in capsys.readouterr().err


def test_variants_that_need_the_photographs_are_no_pieces_where_files_travel() -> None:
    sections = params.study("cub200")
    sections["shift"] = {**sections["shift"], "mask_variants": ["eroded", "true", "u2netp"]}
    for carry, wanted in ((False, ["eroded", "true"]), (True, ["eroded"])):
        found = [p.name for p in pieces.of_study(sections, carry) if p.kind == "variant"]
        assert found == wanted


@pytest.mark.parametrize("losses", [["triplet"], ["triplet", "arcface"]])
def test_checks_and_variants_are_of_the_models_that_the_step_takes(losses: list[str]) -> None:
    """The step: every arm of the first loss and seed, in the order of training."""
    sections = params.study("cub200")
    sections["train"] = {**sections["train"], "losses": losses, "seeds": [3, 4]}
    work = pieces.Work("cub200", "methods", {}, sections)
    monkey = {"model": lambda self, name: (name,)}
    recipes = study.recipes("cub200", **sections["train"])
    first = [measured.name_of(r.loss, r.arm, r.seed) for r in recipes
             if (r.loss, r.seed) == (recipes[0].loss, recipes[0].seed)]  # fmt: skip
    found = type("Named", (pieces.Work,), monkey)(**vars(work)).first()
    assert found == first == [f"triplet-{arm}-3" for arm in sections["train"]["arms"]]
    by_id = {piece.id: piece for piece in pieces.of_study(sections)}
    for piece in by_id.values():
        if piece.kind in ("check", "variant"):
            assert {f"model/{name}" for name in first} <= set(piece.after)
    assert set(grid.USUAL) == set(pieces.KINDS)


# --- the tiny study, end to end ------------------------------------------------------------------

CHANGES = {
    "train": {"losses": ["normalized_softmax"], "arms": ["base", "bgaugment"], "epochs": 2,
              "iterations": 4, "patience": 2},
    "shift": {"conditions": ["clean", "random_background", "own_background"], "draws": 1},
    "attention": {"images": 4, "images_methods": 2, "images_checks": 2, "noise_levels": [0.15],
                  "methods": ["smoothgrad/distance_to_black"]},
}  # fmt: skip
RESULTS = ("data/models/tiny/**/*.*", "reports/tiny/measured/**/*.*")


class Place:
    """A clone in which the data and masks of the tiny study are made."""

    def __init__(self, root: Path, like: "Place | None" = None):
        if like:
            shutil.copytree(like.root, root)
            self.clone = Clone.__new__(Clone)
            self.clone.root, self.clone.reports = root, root / "reports" / "tiny"
        else:
            self.clone = Clone(root)
            self.clone.set(**CHANGES)
            self.clone.repro("data@tiny", "masks@tiny")
        self.root = root

    def start(self, *words: str, module: str = "lib.run.grid") -> subprocess.Popen:
        """A command in this place; what it says goes to a file."""
        said = open(self.root / "said.txt", "a")  # noqa: SIM115
        return subprocess.Popen(
            [sys.executable, "-m", module, *words], cwd=self.root, stdout=said, stderr=said,
            env=self.clone.environment(),
        )  # fmt: skip

    @property
    def said(self) -> str:
        return (self.root / "said.txt").read_text()

    @property
    def results(self) -> dict[str, bytes]:
        return self.clone.bytes_of(*RESULTS)

    def starts(self) -> dict[str, int]:
        """How often each model was begun, by the logs of the pieces."""
        logs = (self.root / "data" / "scratch" / "tiny" / "grid").glob("model-*.log")
        return {log.stem: log.read_text().count("epoch 0:") for log in logs}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The results of the tiny study run serially, and new places where it is still to be run."""
    home = tmp_path_factory.mktemp("grid")
    before = Place(home / "before")
    serial = Place(home / "serial", before)
    serial.clone.repro("train@tiny", "shift@tiny", "attention@tiny")
    assert len(serial.results) > 20
    return SimpleNamespace(
        serial=serial.results, new=lambda name: Place(home / name, before), home=home
    )


def holder(parent: int, file: str, patience: float = 600) -> psutil.Process:
    """The process under `parent` that has a file open, once there is one."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        for process in psutil.Process(parent).children(recursive=True):
            try:
                if any(file in opened.path for opened in process.open_files()):
                    return process
            except psutil.Error:
                continue
        time.sleep(0.02)
    raise AssertionError(f"nobody opened {file}")


end_to_end = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("grid"),
]


class TestEndToEnd:
    pytestmark = end_to_end

    def test_our_own_cluster_listens_here_and_to_us_only(self) -> None:
        with machines.connected(workers=1) as cluster:
            address = cluster.client.scheduler.address
            assert address.startswith("tls://127.0.0.1:")
            with pytest.raises((OSError, TypeError)):  # without the certificate of this run
                distributed.Client(address, timeout="5s").close()

    def test_two_workers_one_of_them_killed_give_the_serial_bytes(self, places) -> None:
        place = places.new("killed")
        run = place.start("--study", "tiny", "--workers", "2")
        victim = holder(run.pid, "model-normalized_softmax-bgaugment-0.lock")
        log = place.root / "data/scratch/tiny/grid/model-normalized_softmax-bgaugment-0.log"
        until = time.monotonic() + 120
        while "epoch 0:" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < until, place.said
            time.sleep(0.02)
        victim.kill()
        assert run.wait(900) == 0, place.said
        assert place.results == places.serial
        starts = place.starts()
        assert starts.pop("model-normalized_softmax-base-0") == 1
        assert 1 <= starts.pop("model-normalized_softmax-bgaugment-0") <= 2 and not starts
        ran = place.clone.repro("train@tiny", "shift@tiny", "attention@tiny")
        assert ran == []  # afterwards there is nothing to measure

    def test_two_clients_on_one_study_do_no_work_twice(self, places) -> None:
        place = places.new("together")
        runs = [place.start("--study", "tiny", "--workers", "1") for _ in range(2)]
        assert [run.wait(1500) for run in runs] == [0, 0], place.said
        assert place.results == places.serial
        assert set(place.starts().values()) == {1}

    def test_without_a_shared_folder_and_a_worker_of_other_code(self, places) -> None:
        place, far, wrong = (places.new(name) for name in ("client", "far", "wrong"))
        shutil.rmtree(far.root / "data" / "prepared")
        shutil.rmtree(far.root / "data" / "masks")
        wrong.clone.append("lib/training/losses.py", "\nEDITED = True\n")
        address = places.home / "scheduler.json"
        words = ("--scheduler-file", str(address))
        started = [
            place.start(*words, "--host", "127.0.0.1", "--no-dashboard",
                        module="distributed.cli.dask_scheduler"),
        ]  # fmt: skip
        try:
            while not address.exists():
                time.sleep(0.2)
            common = (*words, "--nthreads", "1", "--no-dashboard", "--memory-limit", "0")
            for one in (wrong, far):
                started.append(one.start(*common, module="distributed.cli.dask_worker"))
            scheduler = json.loads(address.read_text())["address"]
            run = place.start("--study", "tiny", "--scheduler", scheduler)
            assert run.wait(1500) == 0, place.said + far.said
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)
        assert place.results == places.serial
        assert "is refused" in place.said and "code of lib" in place.said
        assert not list((wrong.root / "data/scratch/tiny").glob("grid/*.log"))
        assert far.starts() == dict.fromkeys(far.starts(), 1) and len(far.starts()) == 2
        assert place.starts() == {}  # nothing was trained at the client
