import nbformat
import pytest

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.images import conditions
from lib.run import parameters
from lib.training import losses


def test_numbers_are_read_as_dvc_reads_them() -> None:
    assert params.load("a: 1e-4\nb: 1.0e-6\nc: 3\nd: 0.5\ne: text") == {
        "a": 1e-4, "b": 1e-6, "c": 3, "d": 0.5, "e": "text",
    }  # fmt: skip
    assert isinstance(params.load("c: 3")["c"], int)


@pytest.mark.fault(
    "parameters/study",
    "study that does not exist",
    "a name with a letter too many",
    "refused, closest name told",
)
def test_an_unknown_study_names_the_closest() -> None:
    with pytest.raises(StudyError, match="did you mean 'cub200-cpu'"):
        params.study("cub200-cpus")


@pytest.mark.parametrize("study", params.everything()["studies"])
@pytest.mark.parametrize("part", params.SECTIONS)
def test_every_section_fits_its_notebook(study: str, part: str) -> None:
    file = next(paths.NOTEBOOKS.glob(f"*_{part}.ipynb"))
    declared = parameters.declared_parameters(nbformat.read(file, as_version=4))
    parameters.check_parameters(declared, params.section(study, part), file.stem)


@pytest.mark.parametrize("part", params.SECTIONS)
def test_a_notebooks_own_values_are_the_demos(part: str) -> None:
    file = next(paths.NOTEBOOKS.glob(f"*_{part}.ipynb"))
    declared = parameters.declared_parameters(nbformat.read(file, as_version=4))
    assert declared["study"].default == "demo"
    for name, value in params.section("demo", part).items():
        assert declared[name].default == value, name


def test_the_papers_studies_keep_the_papers_protocol() -> None:
    for study in ("cub200", "cars196", "sop"):
        train = params.section(study, "train")
        expected = {
            "trunk": "bn_inception", "image_size": 227, "optimiser": "rmsprop", "lr_trunk": 1e-6,
            "lr_head": 1e-6, "weight_decay": 1e-4, "batch": 32, "iterations": 100, "patience": 15,
            "p": 1.0, "embedding": 128, "lr_loss": 0.0,
        }  # fmt: skip
        assert {name: train[name] for name in expected} == expected
        assert params.section(study, "data")["side"] == 256
        assert params.section(study, "shift")["draws"] == 5
        assert params.section(study, "attention")["copies"] == 25


def test_the_lists_name_known_things() -> None:
    values = params.everything()
    assert sorted(losses.LOSSES) == sorted(values["losses"])
    for study in (study for study in values["studies"].values() if "dial" not in study):
        assert set(study["shift"]["conditions"]) <= set(conditions.CONDITIONS)


def test_source_notebooks_have_no_outputs() -> None:
    for file in paths.NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None, file
