"""lib.execute.notebook: strict parameters, the same bytes, failures in words, no orphan kernel."""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.core import params, paths
from lib.core.parameters import ParameterError, check_parameters
from lib.execute import html
from lib.execute.cleaning import clean, clean_text
from lib.execute.html import network_references, page
from lib.execute.notebook import NotebookFailed, execute, main
from lib.execute.parameters import declared_parameters, parse_override

PARAMETERS = """study: str = "demo"  # name of the study
mode: str = "ok"  # ok, error or study
lr: float = 1e-4  # learning rate
epochs: int = 2  # passes
flip: bool = True  # mirror images
seeds: list[int] = [0, 1]  # one model a seed
sizes: dict = {}  # widths
weights: str = None  # file
guess = 0.5  # no annotation: the default's type"""

WORK = """import os, sys, time, warnings
from pathlib import Path
from IPython.display import HTML, display
for step in range(3):
    print(step, end=" ", flush=True)
    sys.stderr.write(f"\\r{step}/3 i" + "t/s bar")
    sys.stderr.flush()
    time.sleep(0.05)
warnings.warn("only this stays")
with open(os.environ["STUDY_PROGRESS"], "a") as stream:
    stream.write("from the kernel\\n")
print(object(), os.environ["PYTHONHASHSEED"], Path.cwd().name, seeds)
print(__import__("lib.core.errors").core.errors.__file__)
styled = f"T_{os.urandom(3).hex()[:5]}"  # what pandas' Styler does
display(HTML(f"<style>#{styled} {{}}</style><table id='{styled}'></table>"))
display({"image/png": "iVBORw0KGgo=", "text/plain": "x"}, raw=True,
        metadata={"image/png": {"alt": "a <b> & 'c'"}})
object()"""

FAIL = """from lib.core.errors import StudyError
if mode == "study":
    raise StudyError("The folder is empty; run 01_data first.")
if mode == "error":
    raise ValueError("bad number")
if mode == "hang":
    import signal, subprocess
    for number in (signal.SIGINT, signal.SIGTERM):  # as deaf as a long call into C
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"])
    Path("pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)"""


def build(folder: Path) -> Path:
    """A tiny notebook, with an output that must not survive and neighbours on both sides."""
    (folder / "notebooks").mkdir(parents=True)
    for stem in ("01_a", "03_c"):
        nbformat.write(new_notebook(), folder / "notebooks" / f"{stem}.ipynb")
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    parameters.outputs = [new_output("stream", name="stdout", text="stale output")]
    prose = "# A `tiny` title\n\nSee [next](03_c.ipynb#x), [paper](https://example.org)."
    cells = [new_markdown_cell(prose), parameters, new_code_cell(WORK), new_code_cell(FAIL)]
    path = folder / "notebooks" / "02_b.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.fixture
def one_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A params.yaml of one study, whose section for 02_b sets one value."""
    sections = {("demo", "b"): {"epochs": 7}}
    monkeypatch.setattr(params, "section", lambda study, part: sections[study, part])
    monkeypatch.setattr(params, "OF_NOTEBOOKS", ("b",))
    monkeypatch.setattr(paths, "ROOT", tmp_path)  # a study that is being run here is not waited for


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Good run, failing run, good run again, all into one folder."""
    folder = tmp_path_factory.mktemp("story")
    notebook, out = build(folder), folder / "reports" / "demo"
    before = notebook.read_bytes()

    def results() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}

    first = execute(notebook, {"seeds": [5], "lr": 1}, out, neighbours=(None, "03_c_triplet"))
    seen = {"path": first, "first": results()}
    with pytest.raises(NotebookFailed) as failure:
        execute(notebook, {"mode": "error"}, out)
    seen |= {"failure": failure.value, "after_failure": results()}
    execute(notebook, {"seeds": [5], "lr": 1}, out, neighbours=(None, "03_c_triplet"))
    return seen | {"second": results(), "source": (before, notebook.read_bytes())}


def outputs_of(story: dict) -> list[dict]:
    return json.loads(story["first"]["02_b.ipynb"])["cells"][3]["outputs"]


def test_same_run_gives_same_bytes_and_leaves_the_source_alone(story: dict) -> None:
    assert story["path"].name == "02_b.ipynb"
    assert sorted(story["first"]) == ["02_b.html", "02_b.ipynb"]
    assert story["first"] == story["second"]
    assert story["source"][0] == story["source"][1]


@pytest.mark.fault(
    "killed/cell",
    "a cell that fails",
    "an exception in a notebook",
    "earlier results are untouched; the half-run copy is named",
)
def test_failure_keeps_earlier_results_and_a_success_removes_the_failed_copy(story: dict) -> None:
    assert str(story["failure"]) == "ValueError: bad number"
    failed = story["after_failure"].pop("02_b.failed.ipynb")
    assert story["after_failure"] == story["first"]
    assert b"bad number" in failed and b"styled" in failed
    assert story["failure"].failed_copy.name == "02_b.failed.ipynb"
    assert "02_b.failed.ipynb" not in story["second"]


def test_copy_has_no_progress_bar_address_time_or_stale_output(story: dict) -> None:
    text = story["first"]["02_b.ipynb"].decode()
    for absent in ("it/s bar", " at 0x", "papermill", "ipykernel_", "stale output", "iopub"):
        assert absent not in text
    assert "only this stays" in text
    notebook = json.loads(text)
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{i:02d}" for i in range(5)]
    assert [c["execution_count"] for c in notebook["cells"][1:]] == [1, 2, 3, 4]
    assert notebook["metadata"]["language_info"] == {"name": "python"}


def test_kernel_environment_and_merged_stdout(story: dict) -> None:
    stdout = [o for o in outputs_of(story) if o.get("name") == "stdout"]
    assert len(stdout) == 1
    assert "".join(stdout[0]["text"]).splitlines() == [
        "0 1 2 <object object> 0 notebooks [5]",
        "lib/core/errors.py",
    ]


def test_page_is_self_contained_and_links_to_its_neighbours(story: dict) -> None:
    text = story["first"]["02_b.html"].decode()
    soup = BeautifulSoup(text, "html.parser")
    assert network_references(text) == []
    assert soup.title.text == "A tiny title" and soup.html["lang"] == "en"
    assert [a["href"] for a in soup.nav("a")] == [
        "01_a.html",
        "../index.html",
        "03_c_triplet.html",
        "../../notebooks/02_b.ipynb",
        "02_b.ipynb",
    ]
    assert [a["href"] for a in soup.main("a")] == ["03_c_triplet.html#x", "https://example.org"]
    assert soup.img["alt"] == "a <b> & 'c'"


def test_page_folds_code_and_names_the_parameters(story: dict) -> None:
    soup = BeautifulSoup(story["first"]["02_b.html"], "html.parser")
    folded = {d.summary.text: d.text for d in soup("details")}
    assert len(soup("details")) == 4 and not any(d.has_attr("open") for d in soup("details"))
    assert all(h.find_parent("details") for h in soup.select(".highlight"))
    assert "name of the study" in folded["parameters and their defaults"]
    assert "seeds = [5]" in folded["values of this run"]


def test_study_error_is_told_in_words_on_the_command_line(
    source: Path, tmp_path: Path, one_study: None, capfd: pytest.CaptureFixture
) -> None:
    arguments = [str(source), "--study", "demo", "-p", "mode=study", "--stem", "x"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    told = capfd.readouterr().err
    assert "\nThe folder is empty; run 01_data first.\nThe half-executed notebook is " in told
    assert "Traceback" not in told and "StudyError" not in told
    assert "x [3/4] A `tiny` title\n" in told and "from the kernel\n" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.failed.ipynb"]
    assert "epochs = 7" in (tmp_path / "out" / "x.failed.ipynb").read_text()


@pytest.mark.fault(
    "parameters/types",
    "unknown parameter, wrong type",
    "twelve wrong -p",
    "refused in one line before anything starts",
)
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epoch=3", "02_b has no parameter 'epoch'; the closest is 'epochs', all are: epochs, fl"),
        ("epochs=1.5", "'epochs' takes int, for example epochs=2, and was given 1.5 (float)"),
        ("epochs=true", "'epochs' takes int"),
        ("flip=1", "'flip' takes bool, for example flip=true"),
        ("seeds=3", "'seeds' takes list, for example seeds=[0, 1]"),
        ("study=7", "'study' takes str, for example study=demo"),
        ("sizes=[1]", "'sizes' takes dict, for example sizes={key: 1}"),
        ("lr=fast", "'lr' takes float, for example lr=0.0001"),
        ("lr=", "'lr' takes float"),
        ("guess=no", "'guess' takes float"),
        ("nonsense", "-p takes name=value"),
        ("seeds=[1", "no YAML"),
    ],
)
def test_wrong_input_stops_before_a_kernel_starts(
    override: str,
    words: str,
    source: Path,
    tmp_path: Path,
    one_study: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(
        "lib.execute.notebook.run_cells", lambda *_: pytest.fail("a kernel was started")
    )
    out = tmp_path / "out"
    assert main([str(source), "--study", "demo", "-p", override, "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert words in told and len(told.splitlines()) == 1
    assert not out.exists()


def test_fitting_values_pass(source: Path) -> None:
    declared = declared_parameters(nbformat.read(source, as_version=4))
    kinds = {name: parameter.kind for name, parameter in declared.items()}
    assert kinds["seeds"] is list and kinds["guess"] is float and kinds["weights"] is str
    good = {"lr": 1, "epochs": 3, "flip": False, "seeds": [], "weights": None, "sizes": {"a": 1}}
    check_parameters(declared, good, "02_b")
    with pytest.raises(ParameterError, match="was given None"):
        check_parameters(declared, {"study": None}, "02_b")


@pytest.mark.parametrize(
    "line", ["a: int = f()", "import os", "a: set = {1}", "a, b = 1, 2", "a ="]
)
def test_a_parameters_cell_that_cannot_be_read_is_named(line: str) -> None:
    cell = new_code_cell(line, metadata={"tags": ["parameters"]})
    with pytest.raises(ParameterError, match="parameters cell"):
        declared_parameters(new_notebook(cells=[cell]), "02_b")


def test_a_notebook_without_parameters_cell_takes_none() -> None:
    assert declared_parameters(new_notebook(cells=[new_code_cell("a: int = 1")])) == {}
    with pytest.raises(ParameterError, match="takes no parameters"):
        check_parameters({}, {"a": 1}, "02_b")


def test_overrides_are_yaml() -> None:
    assert parse_override("lr=1e-4") == ("lr", 1e-4)
    assert parse_override("name=a=b") == ("name", "a=b")
    assert parse_override("seeds=[1, 2]") == ("seeds", [1, 2])
    assert parse_override("name='7'") == ("name", "7")


def test_clean_orders_racing_streams_and_numbers_style_ids() -> None:
    def stream(name: str, text: str):
        return new_output("stream", name=name, text=text)

    shown = new_output("display_data", {"text/html": "<style>#T_0abcd_row0{}</style>T_0abcd"})
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    cell = new_code_cell("x")
    cell.outputs = [
        stream("stderr", "warn\n\r 5%"),
        stream("stdout", "a\rb "),
        stream("stderr", "\r 9%\n"),
        stream("stdout", "c"),
        shown,
        widget,
        stream("stderr", "\rbar"),
    ]
    outputs = clean(new_notebook(cells=[cell])).cells[0].outputs
    assert [o.get("text") for o in outputs] == ["a\rb c", "warn\n", None]
    assert outputs[2].data["text/html"] == "<style>#T_style0_row0{}</style>T_style0"


def test_a_styled_table_keeps_its_cells_and_rules_and_sheds_the_rest() -> None:
    frame = pd.DataFrame(np.arange(40).reshape(10, 4), index=list("abcdefghij"))
    style = frame.style.highlight_between(left=17, right=17, props="color: red")
    style = style.set_table_styles([{"selector": ".row_heading.row3", "props": "color: blue"}])
    cell = new_code_cell("x")
    cell.outputs = [new_output("display_data", {"text/html": style.to_html()})]
    slim = clean(new_notebook(cells=[cell])).cells[0].outputs[0].data["text/html"]
    assert len(slim) < len(style.to_html()) / 2
    was, now = (BeautifulSoup(html, "html.parser") for html in (style.to_html(), slim))
    assert now.table.get_text(" ", strip=True) == was.table.get_text(" ", strip=True)
    (red,) = now.find_all(["td"], id=True)
    assert red.text == "17" and f"#{red['id']} " in now.style.text
    assert [x.text for x in now.select(".row_heading.row3")] == ["d"]


@pytest.mark.fault(
    "foreign/loaded",
    "page that would load from the network",
    "script, style, picture with an address",
    "refused, address named",
)
def test_anything_from_the_network_is_found(tmp_path: Path) -> None:
    text = """<script src="https://a"></script><link href="//b"><a href="https://fine">x</a>
    <img src="data:image/png;base64,aaaa"><style>p{background:url('http://c')}</style>
    <p style="background:url(https://d)"></p><img src="local.png">"""
    assert sorted(network_references(text)) == ["//b", "http://c", "https://a", "https://d"]
    notebook = new_notebook(cells=[new_markdown_cell("![x](https://example.org/x.png)")])
    with pytest.raises(ValueError, match="would load https://example.org/x.png"):
        page(notebook, tmp_path / "02_b.ipynb", tmp_path, "02_b")


def test_a_long_line_is_cleaned_in_a_time_that_grows_as_its_length() -> None:
    def seconds(letters: int) -> float:
        start = time.perf_counter()
        assert clean_text("x/" * (letters // 2)) == "x/" * (letters // 2)
        return time.perf_counter() - start

    short = min(seconds(20_000) for _ in range(5))
    assert min(seconds(1_280_000) for _ in range(3)) < 1000 * short  # 64 times; squared: 4096
    deep = "'/a/site-packages/b/site-packages/c.py' in /tmp/ipykernel_1/2.py (/x/site-packages/y)"
    assert clean_text(deep) == "'c.py' in <cell> (y)"


def alive(pid: int) -> bool:
    """Whether a process runs (one that is dead but not yet waited for does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def waited(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.fault(
    "killed/kernel",
    "SIGTERM to a notebook's run",
    "signal while a cell and its worker are busy",
    "kernel and worker end at once; nothing is written",
)
@pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")
def test_sigterm_leaves_no_kernel_and_no_worker_behind(source: Path, tmp_path: Path) -> None:
    """In a process of its own: a signal that comes late would end the tests."""
    pids, ended = source.parent / "pids", tmp_path / "ended"
    run = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(source), str(tmp_path / "out"), str(ended)]
    )
    try:
        assert waited(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60)
        run.send_signal(signal.SIGTERM)
        # a polite shutdown would wait longer than this
        assert run.wait(6) == 128 + signal.SIGTERM
    finally:
        run.kill()
        run.wait()
    assert ended.read_text() == "put back"
    kernel, worker = map(int, pids.read_text().split())
    # ipykernel notices a dead parent after a second, but its workers never do
    assert waited(lambda: not alive(kernel) and not alive(worker), 0.5)
    assert not (tmp_path / "out").exists()


TERMINATED = """
import signal, sys
from pathlib import Path
from lib.execute.notebook import execute

source, out, ended = map(Path, sys.argv[1:])

def unhandled(*_):
    sys.exit("SIGTERM did not reach the executor's handler")

signal.signal(signal.SIGTERM, unhandled)
try:
    execute(source, {"mode": "hang"}, out)
finally:
    if signal.getsignal(signal.SIGTERM) is unhandled:
        ended.write_text("put back")
"""


def test_a_page_without_neighbours(tmp_path: Path) -> None:
    for name in ("01_a", "02_b", "03_c", "08_dial"):
        (tmp_path / f"{name}.ipynb").touch()
    found = html._neighbours(tmp_path / "02_b.ipynb", (None, ""))
    assert found == [("01_a", "01_a"), (None, None)]
    assert html._neighbours(tmp_path / "02_b.ipynb", ("x", None))[0] == ("01_a", "x")
    assert html._neighbours(tmp_path / "03_c.ipynb", (None, None))[1] == (None, None)
    assert html._neighbours(tmp_path / "08_dial.ipynb", (None, None)) == [(None, None)] * 2


STYLED = """import matplotlib.pyplot as plt
import os
assert plt.rcParams["text.usetex"] is False and os.getpid() != 0
plt.plot([0, 1])
plt.title("50 %, a_b")
plt.show()"""


def written(folder: Path, name: str, code: str) -> Path:
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    given = new_code_cell('study: str = "demo"', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[given, new_code_cell(code)]), path)
    return path


@pytest.mark.fault(
    "place/tmpdir",
    "a folder for temporary files with a long name",
    "TMPDIR of 97 letters: too long for the sockets of a kernel",
    "the notebook runs",
)
@pytest.mark.fault(
    "place/matplotlibrc",
    "a user's own style of figures that asks for LaTeX",
    "matplotlibrc with text.usetex: True, where LaTeX is not installed",
    "figures are drawn in the study's style",
)
def test_a_long_tmpdir_and_a_matplotlibrc_of_the_user(tmp_path: Path, monkeypatch) -> None:
    long = tmp_path / ("t" * (96 - len(str(tmp_path))))
    long.mkdir()
    assert len(str(long)) == 97
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "matplotlibrc").write_text("text.usetex: True\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = execute(written(tmp_path, "01_a", STYLED), {}, tmp_path / "out")
    (output,) = json.loads(made.read_text())["cells"][-1]["outputs"]
    assert "image/png" in output["data"]


def test_several_notebooks_in_one_command_each_in_a_kernel_of_its_own(
    tmp_path: Path, one_study: None, monkeypatch, capsys
) -> None:
    code = "assert 'x' not in globals()\nx = 1"
    names = [str(written(tmp_path, name, code)) for name in ("01_a", "02_c", "03_d")]
    broken = str(written(tmp_path, "02_c", "1 / 0"))
    out = tmp_path / "out"
    assert main([names[0], names[2], "--study", "demo", "--out", str(out)]) == 0
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(kept) == ["01_a.html", "01_a.ipynb", "03_d.html", "03_d.ipynb"]
    assert main([names[0], broken, names[2], "--study", "demo", "--out", str(tmp_path / "2")]) == 1
    after = sorted(path.name for path in (tmp_path / "2").iterdir())
    assert after == ["01_a.html", "01_a.ipynb", "02_c.failed.ipynb"]
    monkeypatch.setattr(
        "lib.execute.notebook.run_cells", lambda *_: pytest.fail("a kernel was started")
    )
    capsys.readouterr()
    for options in (["-p", "x=1"], ["--stem", "y"], ["--previous", ""], ["--next", "y"]):
        assert main([*names, "--study", "demo", "--out", str(out), *options]) == 2
        assert "one notebook at a time" in capsys.readouterr().err
    assert (
        main([names[0], "05_none", "--study", "demo", "--out", str(out)]) == 2
    )  # before the first


def test_a_picture_leads_to_its_file_and_can_be_linked_to(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "demo" / "figures" / "02_b"
    folder.mkdir(parents=True)
    for name, content in (("slopes.svg", b"<svg/>"), ("maps.webp", b"two")):
        (folder / name).write_bytes(content)
    kinds = [("png", b"one", "slopes"), ("jpeg", b"two", "maps"), ("png", b"one", "slopes")]
    kinds += [("png", b"no file", "none")]
    outputs = [
        new_output(
            "display_data",
            {f"image/{kind}": base64.b64encode(content).decode()},
            metadata={f"image/{kind}": {"alt": f"finding {content}", "figure": name}},
        )
        for kind, content, name in kinds
    ]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    found = [figure for _, figure in html.figures(notebook, folder)]
    assert [(f.name, f.file.name, f.alt) for f in found] == [
        ("slopes", "slopes.svg", "finding b'one'"),
        ("maps", "maps.webp", "finding b'two'"),
    ]
    text = page(notebook, tmp_path / "notebooks" / "02_b.ipynb", folder.parent.parent, "02_b")
    soup = BeautifulSoup(text, "html.parser")
    assert [(a["id"], a["href"]) for a in soup.main("a")] == [
        ("figure-slopes", "figures/02_b/slopes.svg"),
        ("figure-maps", "figures/02_b/maps.webp"),
    ]
    sources = [img["src"] for img in soup("img")]
    assert sources[:2] == ["figures/02_b/slopes.svg", "figures/02_b/maps.webp"]
    assert all(src.startswith("data:image/png") for src in sources[2:])  # no file of their own
    findings = [p.text for p in soup("p", "finding")]  # read on phones, spoken once
    assert findings == ["finding b'one'", "finding b'two'"]
    assert "file" not in outputs[0].metadata


def test_tables_say_what_their_headers_are_for() -> None:
    frame = pd.DataFrame(
        {"v": [1, 2, 3], "w": ["few steps", "", ""]},
        index=pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)], names=["loss", "seed"]),
    )
    soup = BeautifulSoup(html.headed(frame.to_html()), "html.parser")
    heads = [
        [(c.name, c.text, c.get("scope")) for c in row(["td", "th"])] for row in soup.thead("tr")
    ]
    assert heads == [[("th", word, "col") for word in ("loss", "seed", "v", "w")]]
    body = [(c.text, c["scope"]) for c in soup.tbody("th")]
    assert body[:2] == [("a", "rowgroup"), ("0", "row")] and body[-2:] == [
        ("b", "row"),
        ("0", "row"),
    ]
    words = [c.text for c in soup.select(".words")]
    assert words == ["loss", "seed", "w", "few steps", "", ""]


def test_an_interval_and_a_unit_stay_on_their_line() -> None:
    frame = pd.DataFrame({"gain": ["-1.3 [-2.5, 0.4]", "[a, b] 5"]}, index=["BGAugment, 50 %", "x"])
    soup = BeautifulSoup(html.headed(frame.to_html()), "html.parser")
    assert [c.text for c in soup.tbody("td")] == ["-1.3 [-2.5,\u00a00.4]", "[a, b] 5"]
    assert soup.tbody.th.text == "BGAugment, 50\u00a0%"


def test_tables_with_headers_over_several_columns_keep_them() -> None:
    columns = pd.MultiIndex.from_product([["ours", "paper"], ["clean", "new"]])
    frame = pd.DataFrame([[1.0, 2.0, None, 4.0]], index=["base"], columns=columns)
    soup = BeautifulSoup(html.headed(frame.style.to_html()), "html.parser")
    rows = [[(c.name, c.get("scope")) for c in row(["td", "th"])] for row in soup.thead("tr")]
    assert rows == [
        [("td", None), ("th", "colgroup"), ("th", "colgroup")],
        [("td", None)] + [("th", "col")] * 4,
    ]
    assert not soup.select(".words")


def test_every_line_of_the_parameters_hangs_by_itself() -> None:
    code = '<div class="highlight"><pre><span></span>a = 1\nb = 2\n</pre></div>\n'
    soup = BeautifulSoup(html.lines(code), "html.parser")
    assert [line.text for line in soup.select("pre > .line")] == ["a = 1\n", "b = 2\n"]
    assert soup.text == BeautifulSoup(code, "html.parser").text
