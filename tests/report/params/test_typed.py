"""Values as people type them, in a profile, after ``-p`` and for papermill: taken or refused."""

import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

from xailib.errors import InputError
from xailib.report.cli import main
from xailib.report.cli.common import yaml_changes
from xailib.report.params.profiles import load_profile, read_values
from xailib.report.params.schema import check

FOLDERS = ["2024", "2024-01-05", "no", "true", "010", "1e3", "12:30", "0x10"]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def folders(tmp_path, picture):
    """Folders that YAML would take for numbers, dates and truths, with a photograph in each."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(tmp_path / name / "one.png")
    return tmp_path


# Words that YAML takes for something else


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_may_be_called_like_a_number_a_date_or_a_truth(folders, monkeypatch, name):
    (found,) = yaml_changes([f"images={name}"]).values()
    assert found == name
    assert yaml_changes([f"images=[{name}, a]"]) == {"images": [name, "a"]}
    monkeypatch.chdir(folders)
    assert check("2_lime", yaml_changes([f"images={name}"])) == {"images": [name]}


@pytest.mark.parametrize("name", FOLDERS)
def test_so_it_may_in_a_profile(folders, name):
    file = folders / "mine.yaml"
    file.write_text(f"images: {name}\ntasks: {{3_cam: {{layer: {name}}}}}\n")
    found = load_profile(file, only="3_cam").values("3_cam")  # its paths start at its own folder
    assert found["images"] == [str((folders / name).resolve())]
    assert found["layer"] == name
    file.write_text(f"weights: {name}\nmodel: {folders / 'net.py'}:f\nimages: coffee\n")
    (folders / "net.py").write_text("f = None")
    with pytest.raises(InputError, match=f"^weights: '.*{name}' is not a file"):
        load_profile(file, only="3_cam")


MEANT = {
    "10": 10, "0": 0, '"10"': "10", "'10'": "10", "007": "007", "drum": "drum", "no": "no",
    "2024-01-05": "2024-01-05", "-1": -1,
}  # fmt: skip


@pytest.mark.parametrize(("typed", "meant"), MEANT.items())
def test_an_index_is_not_a_category_that_is_called_like_it(typed, meant):
    found = yaml_changes([f"target={typed}"])
    assert found == {"target": meant}
    assert type(found["target"]) is type(meant)
    if meant != -1:
        assert check("2_lime", found) == found
        return
    with pytest.raises(InputError, match="target: -1 is not the name or the index of a class"):
        check("2_lime", found)


@pytest.mark.parametrize(
    ("task", "name", "typed", "meant"),
    [
        ("1_clip_dissect", "control", "true", True),
        ("1_clip_dissect", "control", "False", False),
        ("2_lime", "num_samples", "200", 200),
        ("5_faithfulness", "steps", "8", 8),
        ("9_stability", "sizes", "[100, 200]", [100, 200]),
        ("9_stability", "sizes", "100", [100]),
        ("5_faithfulness", "road_percentiles", "62.5", [62.5]),
    ],
)
def test_a_text_is_taken_for_the_number_or_truth_that_it_says(task, name, typed, meant):
    """Papermill hands ``true`` on as text, and its ``-r`` everything."""
    (found,) = check(task, {name: typed}).values()
    assert found == meant
    assert type(found) is type(meant)
    assert check(task, yaml_changes([f"{name}={typed}"])) == {name: meant}


def test_the_users_folder_is_found_wherever_it_stands(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders))
    (folders / "net.py").write_text("def load(weights=None): ...")
    (folders / "w.pth").touch()
    given = {"images": ["~/2024"], "model": "~/net.py:load", "weights": "~/w.pth"}
    assert check("2_lime", given) == {
        "images": [f"{folders}/2024"],
        "model": f"{folders}/net.py:load",
        "weights": f"{folders}/w.pth",
    }
    with pytest.raises(InputError, match=r"boxes: no file '/.*/b.csv'"):
        check("4_agreement", {"boxes": "~/b.csv"})
    with pytest.raises(InputError, match=r"boxes: no file '~nobody-of-this-name/b.csv'"):
        check("4_agreement", {"boxes": "~nobody-of-this-name/b.csv"})
    found = load_profile("embedded", {"images": "~/2024"}, "2_lime").parameters
    assert found["images"] == [f"{folders}/2024"]


@pytest.mark.parametrize(("task", "name"), [("1_clip_dissect", "probe"), ("2_lime", "images")])
def test_an_empty_folder_is_refused_before_anything_is_loaded(tmp_path, task, name):
    mine, other = tmp_path / "mine", tmp_path / "other"
    (mine / "below").mkdir(parents=True)
    with pytest.raises(InputError, match=rf"^{name}: the folder '.*' is empty"):
        check(task, {name: str(mine)})
    other.mkdir()
    (other / "a.png").touch()
    (mine / "link").symlink_to(other)
    assert check(task, {name: str(mine)})


# Profiles that are no good YAML


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 0\ntasks:\n\t2_lime:\n", "line 3: a tab; YAML wants blanks"),
        ("seed: 0\nnum_samples:\t20\n", "line 2: a tab; YAML wants blanks"),
        ("seed: 0\nimages: [a]\nseed: 1\n", "line 3: 'seed' stands twice"),
        ("tasks:\n  2_lime: {seed: 1, seed: 2}\n", "line 2: 'seed' stands twice"),
        ("tasks:\n  2_lime: {seed: 1}\n  2_lime: {seed: 2}\n", "line 3: '2_lime' stands twice"),
        ("images: *.jpg\n", "line 1: "),
        ("a: [\n", "line 2: "),
        ("? [a]\n: b\n", "line 1: found unhashable key"),
    ],
)
def test_what_is_wrong_in_a_profile_is_told_with_its_line(tmp_path, text, line):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_profile(file)
    assert f"mine.yaml' is not YAML: {line}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_alias_is_no_second_key():
    text = "tasks: {2_lime: &own {seed: 1}, 3_cam: *own, 9_stability: {<<: *own, pool: 9000}}"
    tasks = read_values(text)["tasks"]
    assert tasks["3_cam"] == {"seed": 1}
    assert tasks["9_stability"] == {"seed": 1, "pool": 9000}


@pytest.mark.parametrize("name", ["my profile", "my\tprofile"])
def test_a_profile_whose_name_has_a_blank_is_refused(tmp_path, name):
    file = tmp_path / f"{name}.yaml"
    file.write_text("seed: 0")
    with pytest.raises(InputError, match=r"^profile: .* has a blank; its results get a folder of"):
        load_profile(file)


# As the command and papermill take them


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-p", "seed=1", "-p", "seed=2"], "-p seed: given twice; a list is seed=[a"),
        (["-p", "images=[a"], "is not NAME=VALUE in YAML: "),
        (["-p", "control=perhaps"], "control: 'perhaps' is not true or false"),
        (["-p", "probe="], "probe: no value was given; allowed: a list of names, files or fold"),
        (["-p", "precision="], "precision: no value was given; allowed: exact, tf32 or half"),
    ],
)
def test_the_command_refuses_in_one_line(words, line):
    done = CliRunner().invoke(main, ["run", *words])
    assert done.exit_code == 2
    assert line in done.stderr.splitlines()[-1]
