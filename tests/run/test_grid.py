"""A study's pieces on many machines: handed out, refused, repeated; the serial run's bytes."""

import json
import os
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

import psutil
import pytest

from benchmarks import schedule
from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import digest, noted, write_json
from lib.core.stage import locked
from lib.run import grid, pieces
from lib.run.pieces import Piece
from tests.pipeline.test_pipeline import Clone

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


def test_every_worker_of_our_own_cluster_gets_a_gpu_of_its_own(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(pieces, "identity", dict)
    seen = []
    for name in range(3):
        pieces.start(2, dask_worker=SimpleNamespace(name=name))
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["0", "1", "0"]


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
            return grid.Grid(grid.Crew(client, "toys", **more), "toys", SECTIONS)

        yield SimpleNamespace(made=made, grid=new)


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
    monkeypatch.setattr(grid, "GRACE", 0.0)
    one = toys.grid(own=pieces.identity() | {"torch": "0.4"})
    with pytest.raises(StudyError, match="torch .* instead of 0.4"):
        one.make([toy("a")])
    assert toys.made == []


def test_time_left_counts_kinds_that_were_not_seen_yet() -> None:
    one = grid.Progress("s", grid.Counter(model=3, embedding=10))
    assert one.left(1) is None
    one.add(Piece("model", "a"), 2 * grid.USUAL["model"])
    rest = 2 * grid.USUAL["model"] + 10 * grid.USUAL["embedding"]
    assert one.left(1) == pytest.approx(2 * rest)  # here everything takes twice as long
    assert one.left(4) == pytest.approx(2 * rest / 4)


def test_a_file_for_jobs_of_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "slurm.yaml"
    file.write_text(
        "class: SLURMCluster\njobs: 0\noptions: {queue: gpu, cores: 1, memory: 16GB, "
        "interface: lo, job_extra_directives: ['--gres=gpu:1']}\n"
    )
    with grid.jobs_of(str(file)) as made:
        script = made.job_script()
    assert "#SBATCH -p gpu" in script and "#SBATCH --gres=gpu:1" in script
    file.write_text("class: os.system\noptions: {}\n")
    with pytest.raises(StudyError, match="SLURMCluster"):
        grid.jobs_of(str(file))


def test_the_simulated_schedule_of_a_grid_small_enough_to_draw() -> None:
    """Two machines: a(3) then c(4) on one, b(2) d(2) on the other; e(1) needs both ends."""
    rows = [("a", 3, ()), ("b", 2, ()), ("c", 4, ("a",)), ("d", 2, ("b",)), ("e", 1, ("c", "d"))]
    todo = [schedule.Job(name, "model", after, seconds) for name, seconds, after in rows]
    assert [schedule.simulate(todo, workers) for workers in (1, 2, 9)] == [12, 8, 8]
    first = [schedule.Job("x", "embedding", (), 1), schedule.Job("y", "model", (), 5)]
    assert schedule.simulate([*first, schedule.Job("z", "embedding", ("y",), 5)], 1) == 11
    assert schedule.simulate([*first, schedule.Job("z", "embedding", ("y",), 5)], 2) == 10


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


def holder(parent: int, file: str, patience: float = 240) -> psutil.Process:
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


end_to_end = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("grid")]


class TestEndToEnd:
    pytestmark = end_to_end

    def test_our_own_cluster_listens_here_and_to_us_only(self) -> None:
        with grid.connected(workers=1) as (client, _):
            address = client.scheduler.address
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
