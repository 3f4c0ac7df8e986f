"""Whatever is wrong in params.yaml is told before anything runs."""

from pathlib import Path

import pytest
import yaml

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.parameters import ParameterError
from lib.run import check_studies
from tests.helpers import save

STUDIES = params.everything()["studies"]


@pytest.fixture
def changed(home: Path, monkeypatch):
    """Writes params.yaml with the demo changed, `section={key: value}`, as study `mine`."""

    def write(study: str = "demo", **changes: dict) -> None:
        made = {
            part: {**values, **changes.get(part, {})} for part, values in STUDIES[study].items()
        }
        text = yaml.safe_dump({"run": ["mine"], "studies": {"mine": made}})
        (home / "params.yaml").write_text(text)

    monkeypatch.setattr(paths, "PARAMS", home / "params.yaml")
    return write


@pytest.mark.parametrize("study", [name for name in STUDIES if "dial" not in STUDIES[name]])
def test_every_study_of_the_repository_is_sound(study: str) -> None:
    assert set(check_studies.check(study)) == set(params.SECTIONS)


WRONG = [
    ({"train": {"learning_rate": 1}}, "no parameter 'learning_rate'"),
    ({"train": {"losses": []}}, "`losses` is .*one or more"),
    ({"train": {"losses": ["triplet", "triplet"]}}, "each once"),
    ({"train": {"losses": "triplet"}}, "takes list"),
    ({"train": {"losses": ["tripplet"]}}, "unknown loss"),
    ({"train": {"arms": ["base", "bgaug"]}}, "unknown arm"),
    ({"train": {"arms": []}}, "`arms` is"),
    ({"train": {"seeds": [0, 0]}}, "`seeds` is"),
    ({"train": {"seeds": ["zero"]}}, "list of int and holds 'zero'"),
    ({"train": {"trunk": "resnet"}}, "unknown trunk"),
    ({"train": {"batch": 0}}, "batch is not a positive"),
    ({"train": {"lr_head": -1.0}}, "lr_head is negative"),
    ({"train": {"precision": "f16"}}, "precision"),
    ({"train": {"optimiser": "sgd"}}, "optimiser"),
    ({"train": {"image_size": 81}}, "image_size is 81, data.side 80"),
    ({"shift": {"mask_variants": [True]}}, 'holds True .bool.; write "true" with quotes'),
    ({"shift": {"mask_variants": ["erodet"]}}, "unknown mask variant"),
    ({"shift": {"conditions": ["random_background"]}}, "must hold 'clean'"),
    ({"shift": {"conditions": []}}, "must hold 'clean'"),
    ({"shift": {"conditions": ["clean", "clean"]}}, "each once"),
    ({"shift": {"conditions": ["clean", "randm"]}}, "unknown condition"),
    ({"shift": {"draws": 0}}, "draws are 0"),
    ({"attention": {"methods": ["smoothgrid"]}}, "no explanation"),
    ({"attention": {"images": 0}}, "images .attention."),
    ({"attention": {"copies_levels": []}}, "`copies_levels` is"),
    ({"attention": {"noise_levels": [0.1, 0.1]}}, "`noise_levels` is"),
    ({"attention": {"noise": "much"}}, "takes float"),
    ({"remedies": {"conditions": ["clean"]}}, "remedies. lack 'random_background': page 07"),
    ({"remedies": {"conditions": ["random_background"]}}, "must hold 'clean'"),
    ({"masks": {"source": "u3net"}}, "unknown mask source"),
    ({"masks": {"source": "box"}}, "no bounding boxes"),
    ({"masks": {"compare": ["u2net", 3]}}, "list of str and holds 3"),
    ({"data": {"dataset": "cub"}}, "unknown data set"),
    ({"data": {"options": {"seed": 0}}}, "options of data set 'rendered' lack"),
    ({"data": {"options": {"folder": "x"}}}, "has no parameter 'folder'"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    changed, changes, words, capsys
) -> None:
    changed(**changes)
    with pytest.raises((StudyError, ParameterError), match=words):
        check_studies.check("mine")
    assert check_studies.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_lists_may_be_shortened(changed) -> None:
    changed(
        train={"losses": ["arcface"], "arms": ["bgaugment"]},
        shift={"conditions": ["clean"], "mask_variants": []},
        attention={"methods": [], "copies_levels": [2], "noise_levels": [0.5]},
    )
    check_studies.check("mine")
    changed(masks={"source": "u2netp"}, shift={"mask_variants": ["u2netp", "eroded"]})
    check_studies.check("mine")  # the study's own source adds nothing


def test_the_expected_time_of_ones_own_is_told(changed, home, capfd) -> None:
    for k in range(12):
        for i in range(12):
            save(home / "data" / "own" / f"c{k}" / f"{i}.png", 12 * k + i)
    changed("own")
    assert check_studies.main([]) == 0
    told = capfd.readouterr().err
    assert "144 images of 12 classes, 2 x 2 x 1 models" in told
    assert "minutes on two cores" in told and "make audit" in told
    sections, images = check_studies.check("mine"), {"train": 9, "validation": 9, "test": 9}
    few = check_studies.minutes(sections, images)
    many = check_studies.minutes(sections, images | {"test": 99})
    assert few["training"] == many["training"] and few["shift"] < many["shift"]
    assert 5 < sum(many.values()) < 60


def test_ones_own_without_images_is_refused(changed, capsys) -> None:
    changed("own")
    assert check_studies.main([]) == 2
    assert "was not found" in capsys.readouterr().err
