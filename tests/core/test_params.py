import nbformat
import pytest

from lib.attention import measure as attention
from lib.core import params, paths, stage
from lib.core.errors import StudyError
from lib.core.parameters import check_parameters
from lib.data import prepare
from lib.evaluation import measure as evaluation
from lib.evaluation import remedies_measure
from lib.execute import parameters
from lib.experiments import bias_dose
from lib.images import conditions
from lib.masks import quality as masks
from lib.training import arms, losses
from lib.training import study as training


def test_numbers_are_read_as_dvc_reads_them() -> None:
    text = "{a: 1e-4, b: 1.0e-6, c: 3, d: 0.5, e: text, f: -1E3, g: 'true', h: true}"
    found = params.load(text)
    assert found == {
        "a": 1e-4, "b": 1e-6, "c": 3, "d": 0.5, "e": "text", "f": -1000.0, "g": "true", "h": True,
    }  # fmt: skip
    assert isinstance(found["c"], int) and isinstance(found["f"], float)
    merged = params.load("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, z: 4}")
    assert merged["c"] == {"x": 1, "y": 3, "z": 4}


def test_every_committed_number_is_one_for_dvc_too() -> None:
    from dvc.utils.serialize import load_yaml

    assert params.everything() == load_yaml(paths.PARAMS)


@pytest.mark.fault(
    "parameters/study",
    "study that does not exist",
    "a name with a letter too many",
    "refused, closest name told",
)
def test_an_unknown_study_names_the_closest() -> None:
    with pytest.raises(StudyError, match="did you mean 'cub200-cpu'"):
        params.study("cub200-cpus")


STUDIES = params.everything()["studies"]
TOLD = [part for part in params.OF_NOTEBOOKS if part != params.ALONE]  # taken by a notebook, too
MEASURING = {
    "data": prepare.measure,
    "masks": masks.measure,
    "train": training.measure,
    "shift": evaluation.measure,
    "attention": attention.measure,
    "remedies": remedies_measure.measure,
}


@pytest.mark.parametrize("part", params.SECTIONS)
@pytest.mark.parametrize("study", [name for name in STUDIES if params.ALONE not in STUDIES[name]])
def test_every_section_fits_its_measuring_step(study: str, part: str) -> None:
    assert stage.given(MEASURING[part], part, study)["study"] == study


def test_the_dials_section_fits_its_measuring_step() -> None:
    values = stage.given(bias_dose.measure, params.ALONE, "dial")
    train = params.section("demo", "train")
    assert set(values["recipe"]) == set(train) - {"losses", "arms", "seeds"}


@pytest.mark.parametrize("part", TOLD)
def test_every_section_fits_its_notebook(part: str) -> None:
    file = next(paths.NOTEBOOKS.glob(f"*_{part}.ipynb"))
    declared = parameters.declared_parameters(nbformat.read(file, as_version=4))
    for study in STUDIES:
        check_parameters(declared, params.section(study, part), file.stem)


@pytest.mark.parametrize("part", TOLD)
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
            "embedding": 128, "lr_loss": 0.0,
        }  # fmt: skip
        assert {name: train[name] for name in expected} == expected
        assert params.section(study, "data")["side"] == 256
        assert params.section(study, "shift")["draws"] == 5
        assert params.section(study, "attention")["copies"] == 25


def test_the_studies_name_known_losses_arms_and_conditions() -> None:
    for study in (STUDIES[name] for name in STUDIES if params.ALONE not in STUDIES[name]):
        assert set(study["train"]["losses"]) <= set(losses.LOSSES)
        assert set(study["train"]["arms"]) <= set(arms.ARMS)
        assert set(study["shift"]["conditions"]) <= set(conditions.CONDITIONS)


def test_source_notebooks_have_no_outputs() -> None:
    for file in paths.NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None, file
