"""The workflow file: what is refused and how, what overrides do, and that the schema follows the functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sciSR.config import (
    AugmentSection,
    ConsistencySection,
    DegradeSection,
    EvaluateSection,
    NormalizationSection,
    Section,
    TrainSection,
    UpscaleSection,
    Workflow,
    dump_workflow,
    load_workflow,
    make_workflow,
    parse_factors,
    workflow_reference,
    workflow_schema,
)
from sciSR.config.yaml_data import parse_yaml
from sciSR.errors import ConfigError, MissingFileError

MINIMAL = {"input": "a.nii.gz", "upscale": {"network": "cubic", "scale": 2}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.yaml"
    path.write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    return path


def names(section: type[Section]) -> set[str]:
    return set(section.model_fields)


def test_a_workflow_reads_as_it_is_written(file: Path) -> None:
    workflow = load_workflow(file)
    assert workflow.input is not None
    assert workflow.input.path == ("a.nii.gz",)
    assert workflow.upscale is not None
    assert (workflow.upscale.network, workflow.upscale.scale) == ("cubic", 2)
    assert workflow.evaluate is None


def test_nothing_in_a_workflow_can_be_changed(file: Path) -> None:
    workflow = load_workflow(file)
    with pytest.raises(ValueError, match="frozen"):
        workflow.input = None


@pytest.mark.parametrize("defaults", [True, False])
def test_a_dumped_workflow_loads_to_the_same(file: Path, tmp_path: Path, defaults: bool) -> None:
    workflow = load_workflow(
        file,
        [
            "upscale.tile=null",
            "upscale.scale={z: 4}",
            "input.labels=false",
            "evaluate={}",
            "evaluate.crop=null",
            "report={html: true}",
            "upscale.normalization={kind: fixed, center: [1, 2], scale: [3, 4]}",
        ],
    )
    again = tmp_path / "again.yaml"
    again.write_text(dump_workflow(workflow, defaults=defaults), encoding="utf-8")
    assert load_workflow(again) == workflow


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("upscal.scale=2", "upscal: unknown key; did you mean upscale?"),
        ("upscale.scal=2", "upscale.scal: unknown key; did you mean upscale.scale?"),
        ("tile=64", "tile: unknown key; did you mean upscale.tile?"),
        ("evaluate.protocoll=wald", "did you mean evaluate.protocol?"),
        ("report.htlm=true", "did you mean report.html?"),
        ("bogus=1", "known here: input, train"),
        ("upscale.normalization.centre=[1]", "did you mean upscale.normalization.center?"),
    ],
)
def test_an_unknown_key_is_an_error_with_its_near_match(file: Path, change: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_workflow(file, [change])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_the_file_names_the_file(file: Path) -> None:
    file.write_text("input: a.nii\nupscale: {network: cubic, scales: 2}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"w\.yaml: upscale\.scales: unknown key; did you mean upscale\.scale\?"):
        load_workflow(file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("upscale.scale=[4, 1, 1]", "by position"),
        ("upscale.scale=4,1,1", "by position"),
        ("upscale.scale={t: 2}", "t is time"),
        ("upscale.scale={q: 2}", "no spatial axis 'q'"),
        ("upscale.scale=0", "positive"),
        ("upscale.scale=-2", "positive"),
        ("upscale.scale=.nan", "positive"),
        ("upscale.scale=true", "positive"),
        ("upscale.scale={}", "names no axis"),
        ("upscale.scale=z=2,z=3", "twice"),
        ("upscale.target_spacing=1.0", "scale and target_spacing both came"),
        ("upscale.tile=3.5", "whole number"),
        ("upscale.tile=0", "positive"),
        ("upscale.precision=half", "expected 'auto', 'float32'"),
        ("upscale.workers=0", "greater than or equal to 1"),
        ("upscale=3", "a section of keys and values"),
        ("evaluate.protocol=reference", "needs the key reference"),
        ("evaluate.reference=x.tif", "protocol wald takes no reference"),
        ("input=null", "the key input is missing"),
        ("upscale.network=null", "upscale.network is missing"),
        ("upscale=null", "no step to do"),
        ("degrade={scale: 2, sensor: mri}", "upscale and degrade are two runs"),
        ("evaluate.data_range=0", "greater than 0"),
    ],
)
def test_a_value_that_does_not_fit_is_answered_in_one_line(file: Path, change: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_workflow(file, [change])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("foo", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("upscale..scale=3", "expected section.key=value"),
        ("upscale.network.name=x", "upscale.network is 'cubic', not a section"),
        ("input.path.7=x", "no position in a list of 2"),
        ("upscale.scale=[1", "not a YAML of plain values"),
    ],
)
def test_an_override_that_leads_nowhere_says_so(tmp_path: Path, change: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_workflow({**MINIMAL, "input": {"path": ["a", "b"]}}, [change])
    assert expected in str(caught.value)


def test_another_input_keeps_what_stands_beside_the_path(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("input: {path: a.nii, unit: HU}\noutput: {path: out, cog: true}\nupscale: {network: cubic}")
    workflow = load_workflow(path, ["input=b.nii", "output=other"])
    assert workflow.input is not None
    assert (workflow.input.path, workflow.input.unit) == (("b.nii",), "HU")
    assert (workflow.output.path, workflow.output.cog) == ("other", True)
    whole = load_workflow(path, ["input={path: c.nii}"])
    assert whole.input is not None
    assert (whole.input.path, whole.input.unit) == (("c.nii",), None)


def test_overrides_reach_shorthands_lists_and_sections_that_are_not_there(file: Path) -> None:
    workflow = load_workflow(file, ["input.labels=true", "evaluate.crop=64", "output=elsewhere", "output.cog=true"])
    assert workflow.input is not None
    assert (workflow.input.path, workflow.input.labels) == (("a.nii.gz",), True)
    assert workflow.evaluate is not None
    assert workflow.evaluate.crop == 64
    assert (workflow.output.path, workflow.output.cog) == ("elsewhere", True)
    second = make_workflow({**MINIMAL, "input": {"path": ["a", "b"]}}, ["input.path.1=c"])
    assert second.input is not None
    assert second.input.path == ("a", "c")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2, 2),
        ("2", 2),
        (1.5, 1.5),
        ("z=4", {"z": 4}),
        ("z=4, y=1.5", {"z": 4, "y": 1.5}),
        ({"x": 3}, {"x": 3}),
    ],
)
def test_factors_are_a_number_or_named(given: Any, expected: Any) -> None:
    assert parse_factors(given) == expected


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2", "a: &x 1\nb: *x", "a: !!python/object:os.system x", "a: [1", "a: !mine 3", "a: 1\n\tb: 2"],
)
def test_yaml_that_is_more_than_data_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^w:\d+:\d+: not a YAML of plain values") as caught:
        parse_yaml(text, "w")
    assert "\n" not in str(caught.value)


def test_deep_nesting_is_refused_and_does_not_end_the_program() -> None:
    with pytest.raises(ConfigError, match="not a YAML of plain values"):
        parse_yaml("[" * 5000, "w")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0x10", 16),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: Any) -> None:
    value = parse_yaml(text)
    assert value == expected
    assert type(value) is type(expected)


def test_a_file_that_is_no_workflow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        load_workflow(tmp_path / "none.yaml")
    for content, expected in ((b"", "holds nothing"), (b"- 1", "holds list"), (b"\xff\xfe\x00", "UTF-8")):
        path = tmp_path / "w.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=expected):
            load_workflow(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_workflow(tmp_path)


def test_a_section_may_name_a_file_of_configs(tmp_path: Path) -> None:
    named = make_workflow(MINIMAL, ["upscale.normalization=hounsfield"])
    assert named.upscale is not None
    assert named.upscale.normalization == NormalizationSection(kind="fixed", center=(-1024.0,), scale=(4095.0,))
    (tmp_path / "mine.yaml").write_text("picture: false\nhtml: true\n", encoding="utf-8")
    beside = make_workflow({**MINIMAL, "report": "mine.yaml"}, folder=tmp_path)
    assert beside.report is not None
    assert (beside.report.picture, beside.report.html) == (False, True)
    changed = make_workflow({**MINIMAL, "report": "mine.yaml"}, ["report.html=false"], folder=tmp_path)
    assert changed.report is not None
    assert (changed.report.picture, changed.report.html) == (False, False)


def test_a_named_file_that_is_not_there_has_a_near_match(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file 'hounsfeld' in configs/normalizations; did you mean hounsfield\?"):
        make_workflow(MINIMAL, ["upscale.normalization=hounsfeld"])
    with pytest.raises(ConfigError, match="known: fraction, hounsfield"):
        make_workflow(MINIMAL, ["upscale.normalization=zzz"])


def test_files_are_named_one_level_deep_only(tmp_path: Path) -> None:
    (tmp_path / "up.yaml").write_text("network: cubic\nnormalization: hounsfield\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="one level deep only"):
        make_workflow({"input": "a.nii", "upscale": "up.yaml"}, folder=tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="a section of keys and values was expected"):
        make_workflow({"input": "a.nii", "upscale": "list.yaml"}, folder=tmp_path)


def parameters(function: Callable[..., Any], *without: str) -> set[str]:
    return {p for p in signature(function).parameters if p not in without}


def test_the_keys_of_a_step_are_the_arguments_of_its_function() -> None:
    from sciSR.consistency import enforce
    from sciSR.degradation import degrade
    from sciSR.evaluation import evaluate, wald
    from sciSR.inference import upscale
    from sciSR.normalization import Normalization
    from sciSR.sampling import Augmentation
    from sciSR.training import train

    assert names(UpscaleSection) == parameters(upscale, "raster", "labels"), "labels are said with the input"
    assert names(DegradeSection) == parameters(degrade, "raster")
    assert names(ConsistencySection) == parameters(enforce, "result", "low")
    judged = parameters(wald, "raster", "network", "progress", "upscale_options") | parameters(
        evaluate, "result", "low", "progress"
    )
    assert names(EvaluateSection) == judged | {"protocol"}
    assert names(TrainSection) == parameters(train, "resume", "overwrite", "progress")
    assert names(NormalizationSection) == {f.name for f in fields(Normalization)}
    assert names(AugmentSection) == {f.name for f in fields(Augmentation)}


def test_the_defaults_of_a_step_are_those_of_its_function() -> None:
    from sciSR.degradation import degrade
    from sciSR.evaluation import wald
    from sciSR.inference import upscale
    from sciSR.training import train

    pairs: list[tuple[type[Section], Callable[..., Any]]] = [
        (UpscaleSection, upscale), (DegradeSection, degrade), (EvaluateSection, wald), (TrainSection, train),
    ]  # fmt: skip
    for section, function in pairs:
        for name, parameter in signature(function).parameters.items():
            field = section.model_fields.get(name)
            if field is None or field.is_required() or parameter.default is parameter.empty:
                continue
            assert field.get_default(call_default_factory=True) == parameter.default, (section.__name__, name)


def test_the_committed_schema_is_current(root: Path) -> None:
    committed = json.loads((root / "docs" / "workflow.schema.json").read_text(encoding="utf-8"))
    assert committed == workflow_schema(), "run: scisr check --schema > docs/workflow.schema.json"


def test_the_page_of_keys_is_current_and_whole(root: Path) -> None:
    page = workflow_reference()
    committed = (root / "docs" / "workflow.md").read_text(encoding="utf-8")
    assert committed == page, "run: scisr check --keys > docs/workflow.md"
    for section in (UpscaleSection, EvaluateSection, TrainSection, AugmentSection):
        for name in names(section):
            assert f"| `{name}` |" in page
    assert "|  |" not in page, "a key without an explanation"


def test_every_workflow_of_the_project_is_valid_and_fits_the_schema(root: Path) -> None:
    files = sorted((root / "workflows").glob("*.yaml"))
    assert {"mri_x2.yaml", "ct_x2.yaml", "sentinel2_x2.yaml", "mri_thick_slices.yaml"} <= {f.name for f in files}
    for path in files:
        assert isinstance(load_workflow(path), Workflow)
        jsonschema.validate(parse_yaml(path.read_text(encoding="utf-8"), path.name), workflow_schema())


def test_the_schema_refuses_what_the_models_refuse() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, "bogus": 1}, workflow_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"input": "a", "upscale": {"network": "cubic", "scal": 2}}, workflow_schema())
