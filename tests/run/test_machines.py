"""The machines of a grid: GPUs shared out, admitted or refused at once, jobs sent again."""

import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lib.core import paths
from lib.core.errors import StudyError
from lib.run import machines, pieces
from lib.run.machines import Cluster, Crew

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")


@pytest.mark.parametrize(
    ("given", "shared_out"),
    [(None, ["0", "1", "0"]), ("2,3", ["2", "3", "2"]), ("GPU-a1, GPU-b2", ["GPU-a1", "GPU-b2"]),
     ("5,-1", ["5", "5"])],
)  # fmt: skip
def test_every_worker_of_our_own_cluster_gets_one_of_the_gpus_that_we_were_given(
    monkeypatch, given: str | None, shared_out: list[str]
) -> None:
    monkeypatch.setattr(pieces, "identity", dict)
    gpus = 1 if given == "5,-1" else 2  # CUDA stops counting at -1
    for name, wanted in enumerate(shared_out):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        for _ in range(2):  # a worker that is asked again keeps its own
            pieces.start(gpus, dask_worker=SimpleNamespace(name=name))
            assert os.environ["CUDA_VISIBLE_DEVICES"] == wanted


def test_whatever_the_measured_bytes_hang_on_is_compared() -> None:
    assert {"torch", "openvino", "pyarrow", "captum"} < set(pieces.identity())


class Machines:
    """A client of machines that a test invents: what each answers, and who was asked what when."""

    def __init__(self, **answers: object):
        self.answers, self.resources, self.asked = answers, {}, []

    def scheduler_info(self, **_: object) -> dict:
        facts = {name: {"host": name[:1], "resources": self.resources.get(name, {})}
                 for name in self.answers}  # fmt: skip
        return {"workers": facts, "address": "tls://head:8786"}

    def run(self, what, *given: object, workers: list[str], on_error: str) -> dict:
        assert on_error == "return"
        self.asked.append((what.__name__, sorted(workers)))
        if what is pieces.admit:
            self.resources |= {name: {given[0]: 1} for name in workers}
        if what is pieces.sees:
            text = Path(str(given[0])).stem
            return {name: None if "far" in name else text for name in workers}
        if what is pieces.receive:
            return dict.fromkeys(workers, True)
        return {name: self.answers[name] for name in workers}

    def crew(self, **more: object) -> Crew:
        return Crew(Cluster(self), "toys", own={"torch": "2"}, **more)


GOOD = {"torch": "2"}


def test_machines_are_admitted_all_at_once(home, capfd) -> None:
    them = Machines(a1=GOOD, a2=GOOD, b1=GOOD, b2={"torch": "1"}, c1=OSError("no such module"))
    crew = them.crew(trunk="small")
    crew.look()
    everyone = ["a1", "a2", "b1"]
    assert them.asked == [
        ("start", ["a1", "a2", "b1", "b2", "c1"]), ("sees", everyone), ("prepared", everyone),
        ("admit", everyone),
    ]  # fmt: skip
    assert crew.admitted == set(everyone) and crew.carry is False
    assert "torch 1 instead of 2" in crew.refused["b2"]
    assert "OSError: no such module" in crew.refused["c1"]
    crew.look()
    assert len(them.asked) == 4  # nobody is asked twice
    them.answers["b1far"] = GOOD
    crew.look()
    assert "does not see the folder" in crew.refused["b1far"]
    assert capfd.readouterr().err.count("is refused") == 3


def test_a_machine_that_was_started_anew_under_its_address_is_admitted_anew(home) -> None:
    them = Machines(a1=GOOD)
    crew = them.crew()
    crew.look()
    them.resources, them.asked = {}, []
    crew.look()
    assert crew.admitted == {"a1"} and [what for what, _ in them.asked][-1] == "admit"


def test_one_machine_of_a_host_fetches_what_the_others_find_on_its_disk(home) -> None:
    where = paths.StudyPaths("toys").prepared / "images"
    where.mkdir(parents=True)
    (where / "pixels.u8").write_bytes(b"123")
    them = Machines(a1far=GOOD, a2far=GOOD, b1far=GOOD)
    crew = them.crew(trunk="small")
    crew.look()
    assert crew.carry is True and len(crew.admitted) == 3
    sent = [who for what, who in them.asked if what == "receive"]
    assert [len(who) for who in sent] == [2, 1] and sorted(sum(sent, [])) == sorted(crew.admitted)
    prepared = [who for what, who in them.asked if what == "prepared"]
    assert [len(who) for who in prepared] == [2, 1]


def test_where_all_are_refused_it_ends_with_who_and_why(home, monkeypatch) -> None:
    monkeypatch.setattr(machines, "GRACE", 0.05)
    monkeypatch.setattr(machines, "LOOK", 0.01)
    them = Machines(a1={"torch": "1"}, a2={"torch": "1"}, b1={})
    with pytest.raises(StudyError) as told:
        them.crew().wait()
    first, *reasons, last = str(told.value).splitlines()
    assert "no worker of this cluster can be used" in first and "run again" in last
    assert reasons == [
        "  a1, a2: it would compute something else: torch 1 instead of 2",
        "  b1: it would compute something else: torch None instead of 2",
    ]


def test_while_nobody_is_there_it_says_what_it_waits_for(home, monkeypatch, capfd) -> None:
    monkeypatch.setattr(machines, "WAITING", 0.0)
    monkeypatch.setattr(machines, "LOOK", 0.01)
    them, looks = Machines(), []
    crew = them.crew()
    crew.cluster = Cluster(them, awaited="the first job")
    look = crew.look

    def later() -> None:
        looks.append(0)
        if len(looks) == 3:
            them.answers["a1"] = GOOD
        look()

    monkeypatch.setattr(crew, "look", later)
    crew.wait()
    assert capfd.readouterr().err.count("toys: waiting for the first job, 0 s") == 2


@pytest.mark.parametrize(
    ("address", "warned"),
    [("tcp://10.0.0.5:8786", True), ("tcp://head:8786", True), ("ws://10.0.0.5:80", True),
     ("tcp://[fe80::1]:8786", True), ("tls://10.0.0.5:8786", False), ("tcp://[::1]:8786", False),
     ("tcp://127.0.0.1:8786", False), ("tcp://localhost:8786", False)],
)  # fmt: skip
def test_a_scheduler_that_others_reach_unencrypted_is_warned_of(capfd, address, warned) -> None:
    machines.warn_if_open(address)
    told = capfd.readouterr().err
    assert ("is not encrypted" in told and "TLS" in told) == warned


@pytest.fixture
def adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is asked of dask-jobqueue for a file and numbers of pieces; nothing is submitted."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    asked: list[tuple] = []

    def adapt(_: object, minimum_jobs: int, maximum_jobs: int) -> None:
        asked.append((minimum_jobs, maximum_jobs))

    monkeypatch.setattr(jobqueue.SLURMCluster, "adapt", adapt)

    def of(text: str, *counts: int) -> SimpleNamespace:
        file = tmp_path / "slurm.yaml"
        file.write_text(text + "\noptions: {queue: gpu, cores: 1, memory: 16GB, interface: lo, "
                        "job_extra_directives: ['--gres=gpu:1']}\n")  # fmt: skip
        asked.clear()
        made, ask = machines.jobs_of(str(file))
        with made:
            for count in counts:
                ask(count)
            return SimpleNamespace(asked=list(asked), script=made.job_script())

    return of


def test_a_file_for_jobs_of_a_cluster(adapted) -> None:
    found = adapted("class: SLURMCluster\njobs: 8", 0, 5, 99)
    assert "#SBATCH -p gpu" in found.script and "#SBATCH --gres=gpu:1" in found.script
    assert found.asked == [(8, 8)]  # kept at this number: an ended job is sent again
    for text in ("class: os.system", "class: SLURMCluster\njob: 3"):
        with pytest.raises(StudyError, match="SLURMCluster"):
            adapted(text)
    for wrong in ("jobs: many", "jobs: -1", "minimum: 1\nmaximum: true"):
        with pytest.raises(StudyError, match="numbers of jobs"):
            adapted(f"class: SLURMCluster\n{wrong}")


def test_as_many_jobs_as_pieces_within_the_bounds_of_the_file_and_one_at_least(adapted) -> None:
    found = adapted("class: SLURMCluster\nminimum: 0\nmaximum: 32", 0, 7, 7, 99, 2, 0)
    assert [most for _, most in found.asked] == [1, 7, 32, 2, 1]
    assert all(least == most for least, most in found.asked)
    assert adapted("class: SLURMCluster\njobs: 0", 0).asked == [(1, 1)]
    assert adapted("class: SLURMCluster", 0, 9).asked == [(1, 1)]


@pytest.mark.slow
def test_a_job_that_has_ended_is_sent_again(tmp_path: Path, monkeypatch) -> None:
    """With jobs of this machine; a walltime ends all processes of a job, as here."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    from dask_jobqueue import local

    async def close(_: type, job_id: str, __: object) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(job_id)).kill()

    monkeypatch.setattr(local.LocalJob, "_close_job", classmethod(close))
    monkeypatch.setattr(jobqueue, "LocalCluster", local.LocalCluster, raising=False)
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "class: LocalCluster\njobs: 1\noptions: {cores: 1, memory: 1GB, nanny: false, "
        "interface: lo, scheduler_options: {dashboard_address: ':0'}}\n"
    )

    def worker(client: object, old: str = "") -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if there := set(client.scheduler_info()["workers"]) - {old}:
                return there.pop()
            time.sleep(0.1)
        raise AssertionError("no worker came")

    settings = {"distributed.deploy.lost-worker-timeout": "0.2s"}
    with dask.config.set(settings), machines.connected(cluster=str(file)) as cluster:
        first = worker(cluster.client)
        psutil.Process(cluster.client.run(os.getpid)[first]).kill()
        assert worker(cluster.client, first) != first
