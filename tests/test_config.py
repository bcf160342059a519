import math
import typing

import pytest

from vidlat.commands.settings_file import load_yaml
from vidlat.config import (
    CompareConfig,
    EncodeConfig,
    EvaluateConfig,
    FitVAEConfig,
    SampleConfig,
    SplitConfig,
    TrainConfig,
)
from vidlat.errors import ConfigError, ExitCode, InputError

FLOATS = [
    (EncodeConfig, "fps"),
    (EncodeConfig, "time_limit_seconds"),
    (CompareConfig, "fps"),
    (TrainConfig, "plain_flow"),
    (TrainConfig, "shift"),
    (TrainConfig, "min_snr"),
    (TrainConfig, "condition_dropout"),
    (TrainConfig, "first_frame"),
    (TrainConfig, "learning_rate"),
    (TrainConfig, "weight_decay"),
    (TrainConfig, "clip_norm"),
    (TrainConfig, "ema_decay"),
    (TrainConfig, "validation_fraction"),
    (SampleConfig, "guidance"),
    (SampleConfig, "reject_copies"),
    (SampleConfig, "average_length"),
    (SampleConfig, "guidance_interval"),
    (EvaluateConfig, "guidance"),
    (EvaluateConfig, "average_length"),
    (EvaluateConfig, "guidance_interval"),
    (FitVAEConfig, "fps"),
    (FitVAEConfig, "learning_rate"),
    (FitVAEConfig, "epochs"),
    (FitVAEConfig, "clip_norm"),
    (FitVAEConfig, "kl_weight"),
    (FitVAEConfig, "change_weight"),
    (FitVAEConfig, "perceptual_weight"),
    (FitVAEConfig, "adversarial_weight"),
    (FitVAEConfig, "validation_fraction"),
    (FitVAEConfig, "ema_decay"),
    (SplitConfig, "fractions"),
]


def test_every_float_is_among_those_tested():
    found = [
        (config, name)
        for config in (
            EncodeConfig,
            CompareConfig,
            TrainConfig,
            SampleConfig,
            EvaluateConfig,
            FitVAEConfig,
            SplitConfig,
        )
        for name, hint in typing.get_type_hints(config).items()
        if float in (hint, *typing.get_args(hint))
    ]
    assert sorted(map(str, found)) == sorted(map(str, FLOATS))


@pytest.mark.parametrize(("config", "name"), FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf"])
def test_a_number_that_is_not_finite_is_refused(config, name, value):
    with pytest.raises(ConfigError, match=rf"{name}: got -?(nan|inf); expected a finite number, "):
        config.from_mapping({name: value})


@pytest.mark.parametrize("config", [TrainConfig, SampleConfig, EvaluateConfig, FitVAEConfig, SplitConfig])
def test_a_seed_ends_where_torch_takes_no_larger_one(config):
    assert config(seed=2**63 - 1).seed == 2**63 - 1
    for seed in (2**63, -1):
        with pytest.raises(
            ConfigError, match=rf"seed: got {seed}; expected at least 0 and less than 2\*\*63"
        ):
            config(seed=seed)


@pytest.mark.parametrize("text", ["2e-4", "2.0e-4", "0.0002", "2E-4", "'2e-4'"])
def test_a_float_may_be_written_without_a_point(tmp_path, text):
    (tmp_path / "c.yaml").write_text(f"train: {{learning-rate: {text}}}")
    assert load_yaml(tmp_path / "c.yaml", "train") == {"learning_rate": 0.0002}


def test_a_text_that_is_no_number_is_no_float():
    with pytest.raises(ConfigError, match="learning_rate: got 'fast'; expected a number"):
        TrainConfig.from_mapping({"learning_rate": "fast"})


def test_a_text_is_not_taken_for_a_whole_number():
    with pytest.raises(ConfigError, match="steps: got '2e4'; expected a whole number"):
        TrainConfig.from_mapping({"steps": "2e4"})


@pytest.mark.parametrize("given", ["4,8", " 4, 8", [4, 8], (4, 8)])
def test_a_list_of_numbers_may_be_one_text(given):
    assert CompareConfig.from_mapping({"stack": given}).stack == (4, 8)


def test_a_list_may_be_a_single_value():
    assert CompareConfig.from_mapping({"stack": 8, "blend": "center"}).blend == ("center",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stack": []}, "stack: got an empty list"),
        ({"stack": ""}, "stack: got ''; expected a whole number"),
        ({"stack": "4,"}, "stack: got ''; expected a whole number"),
        ({"stack": [4, 4.5]}, r"stack: got 4\.5; expected a whole number"),
        ({"stack": True}, "stack: got True; expected a whole number"),
        ({"stretch": "1,5"}, "stretch: got 5; expected at least 1 and at most 4"),
        ({"stretch_by": "repeat,blend"}, "stretch_by: got 'blend'; expected one of repeat, linear"),
        ({"vae": "tiny"}, "vae: got 'tiny'; expected a list of texts"),
        ({"exclude": [""]}, "exclude: got an empty pattern"),
    ],
    ids=str,
)
def test_a_wrong_value_in_a_list_is_named(given, message):
    with pytest.raises(ConfigError, match=message):
        CompareConfig.from_mapping(given)


def test_a_list_is_no_single_value_of_another_setting():
    with pytest.raises(ConfigError, match="stack: got 4; expected a list of whole numbers"):
        CompareConfig(stack=4)
    with pytest.raises(ConfigError, match=r"stack: got \[4, 8\]; expected a whole number"):
        EncodeConfig.from_mapping({"stack": [4, 8]})


def test_a_file_gives_the_settings_that_stand_in_it(tmp_path):
    (tmp_path / "c.yaml").write_text("encode: {size: 64}\nfit-vae: {kl-weight: 1e-6, steps: 3}\n")
    assert load_yaml(tmp_path / "c.yaml", "encode") == {"size": 64}
    assert load_yaml(tmp_path / "c.yaml", "fit-vae") == {"kl_weight": 1e-6, "steps": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: {steps: 3}\ndraw: {num: 3}",
            r"unknown section draw; known are encode, train, sample, fit-vae, compare",
        ),
        ("steps: 3", "unknown section steps"),
        ("[train]: {steps: 3}", "unhashable|unknown section"),
        ("train: {steps: 3}\ntrain: {batch: 2}", "train is given twice; keep one .*line 2"),
        ("train:\n  steps: 3\n  steps: 4", "steps is given twice; keep one .*line 3"),
        ("train: {warmup-steps: 3, warmup_steps: 4}", "warmup_steps is given twice in `train:`"),
        ("train: {learning_rate: fast}", "learning_rate: got 'fast'"),
        ("train: {learning_rate: .nan}", "learning_rate: got nan; expected a finite number"),
        ("train: {stepz: 3}", r"unknown setting stepz; did you mean steps\?"),
        ("trian: {steps: 3}", r"unknown section trian; did you mean train\?"),
        ("train: {seed: 2026-99-99}", "cannot be read as YAML"),
        ("encode: {size: 3}", "has no section `train:`"),
        ("train:", "has no section `train:`"),
        ("", "has no section `train:`"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_name(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*({message})"):
        load_yaml(tmp_path / "c.yaml", "train")


MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 9)
)
ALIASES = "a0: &a0 [1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 60)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: " + "[" * 20_000, "nested too deeply"),
        ("train: " + "{a: " * 20_000, "nested too deeply"),
        ("? " * 5000, "nested too deeply|cannot be read"),
        (MERGES + "train: {<<: *a8}", "merges more keys"),
        (ALIASES + "train: {steps: *a59}", "unknown section a0"),
        ("train: {steps: &s [*s]}", "steps: got"),
        ("train: {steps: " + "9" * 5000 + "}", "cannot be read as YAML"),
        ("train: {steps: 0x" + "f" * 5000 + "}", "steps: got a whole number of 20000 bits"),
        ("train:\n  ? 0x" + "f" * 5000 + "\n  : 1", "unknown setting a whole number of 20000 bits"),
        ("train: {learning_rate: 0x" + "f" * 5000 + "}", "learning_rate: got a whole number"),
        ("train: {learning_rate: 1e300}", r"learning_rate: got 1e\+300"),
        ("train: {steps: 1e300}", "steps: got"),
        ("train: {batch: 1099511627776}", "batch: got 1099511627776; expected at least 1 and at most 100000"),
        ("train: {frames: 1099511627776}", "frames: got 1099511627776"),
        ("train: {1: 2, null: 3}", "unknown setting 1, None"),
        ("train: {" + ", ".join(f"a{n}: 1" for n in range(9)) + "}", "and 4 more"),
        ("train: {[1]: 2}", "unhashable"),
        ("train: {steps: !!int ''}", "cannot be read as YAML"),
        ("train: {steps: !!timestamp x}", "cannot be read as YAML"),
        ("train: {steps: !!bool x}", "cannot be read as YAML"),
        ("train: {steps: !!python/object:os.system x}", "cannot be read as YAML"),
        ("train: {steps: '" + "x" * 50_000 + "'}", "steps: got 'x"),
        ("#" * 100_001, "has 100001 bytes; expected 100000 at most"),
        ("train: {seed: \udcff}", "cannot be read as YAML"),
    ],
    ids=lambda value: value[:30],
)
def test_a_hostile_file_is_refused_in_one_short_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*({message})") as refusal:
        load_yaml(tmp_path / "c.yaml", "train")
    assert len(str(refusal.value)) < 2000
    assert len(str(refusal.value).splitlines()) == 1


def test_a_missing_file_is_refused_as_any_other_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"c\.yaml: no such file$") as refusal:
        load_yaml(tmp_path / "c.yaml", "train")
    assert refusal.value.exit_code == ExitCode.REFUSED


def test_mappings_may_be_merged(tmp_path):
    (tmp_path / "c.yaml").write_text("train: &t {seed: 3, steps: 9}\nfit-vae: {<<: *t, steps: 8}")
    assert load_yaml(tmp_path / "c.yaml", "fit-vae") == {"seed": 3, "steps": 8}


def test_a_list_of_texts_may_stand_in_a_file_and_nothing_else_in_its_place(tmp_path):
    (tmp_path / "c.yaml").write_text("train: {condition: [view, 'ef:float']}")
    assert load_yaml(tmp_path / "c.yaml", "train") == {"condition": ("view", "ef:float")}
    for wrong in ("view", [1], None):
        with pytest.raises(ConfigError, match=r"condition: got .*; expected a list of texts"):
            TrainConfig.from_mapping({"condition": wrong})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_snr": 5}, "min_snr: weights v and epsilon"),
        ({"first_frame": 1.5}, "first_frame: got 1.5; expected at least 0 and at most 1"),
        ({"shift": 0}, "shift: got 0; expected more than 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


SOME_HASH = "0" * 64
WITHOUT_EFFECT = [
    (TrainConfig, "plain_flow", 0.5, {}, {"objective": "mean-flow"}, "give --objective mean-flow"),
    (TrainConfig, "condition_dropout", 0.3, {}, {"condition": ("view",)}, "give a --condition"),
    (TrainConfig, "first_frames", 2, {}, {"first_frame": 0.5}, "give a --first-frame above 0"),
    (TrainConfig, "split_by_pattern", "^p", {"split_by": "site"}, {"split_by": None}, "leave one of these"),
    (FitVAEConfig, "split_by_pattern", "^p", {"split_by": "site"}, {"split_by": None}, "leave one of these"),
    (TrainConfig, "preset", "base", {"channels": (8, 16), "blocks": 1}, {"blocks": None}, "leave one of"),
    (
        TrainConfig, "validate_every", 7, {"validation_fraction": 0.0}, {"split_by": "Split"},
        "give a --validation-fraction above 0",
    ),
    (
        TrainConfig, "patience", 3, {"validation_fraction": 0.0}, {"split_by": "Split"},
        "give a --validation-fraction above 0",
    ),
    (SampleConfig, "guidance_interval", (0.1, 0.5), {}, {"guidance": 2.0}, "give a --guidance other than 1"),
    (
        FitVAEConfig, "perceptual_hash", SOME_HASH, {}, {"perceptual": "features.pt"},
        "give a network as --perceptual",
    ),
    (FitVAEConfig, "change_weight", 0.5, {"stack": 1}, {"stack": 2}, "give a --stack above 1"),
    (
        FitVAEConfig, "kl_weight", 1e-3, {"init": "tiny", "freeze_encoder": True}, {"freeze_encoder": False},
        "leave --freeze-encoder out",
    ),
]  # fmt: skip
"""A setting, beside which others it has no effect, and which of these give it one."""


@pytest.mark.parametrize(("config", "name", "value", "beside", "helps", "advice"), WITHOUT_EFFECT)
def test_a_setting_without_effect_is_refused_where_it_is_given(config, name, value, beside, helps, advice):
    settings = config(**beside | {name: value})
    for given in (None, [name]):
        with pytest.raises(ConfigError, match=f"^{name}: has no effect .*; {advice}"):
            settings.require_effect(given)
    settings.require_effect([])  # read from a document
    for given in (None, [name, *beside, *helps]):
        config(**beside | {name: value} | helps).require_effect(given)
        config(**beside).require_effect()


def test_a_default_that_is_given_is_refused_too_where_it_has_no_effect():
    TrainConfig().require_effect()
    with pytest.raises(ConfigError, match="plain_flow: has no effect with objective v; give"):
        TrainConfig(objective="v").require_effect(["objective", "plain_flow"])


@pytest.mark.parametrize("text", ["HWT", "hwt", "thwc", "CHW", "WH"])
def test_axes_are_kept_in_upper_case(text):
    assert EncodeConfig(axes=text).axes == text.upper()
    assert FitVAEConfig(axes=text).axes == text.upper()
    assert EncodeConfig(axes="AUTO") == EncodeConfig()


@pytest.mark.parametrize("text", ["", "HT", "HWX", "HHW", "HWT,", "(H,W,T)"])
def test_axes_other_than_each_letter_once_are_refused(text):
    with pytest.raises(ConfigError, match=r"axes: got .*; expected auto, or each axis of the array once"):
        EncodeConfig(axes=text)


def test_an_empty_pattern_to_exclude_is_refused():
    with pytest.raises(ConfigError, match="exclude: got an empty pattern"):
        EncodeConfig(exclude=("*_gt*", ""))


def test_a_choice_may_be_left_open():
    assert FitVAEConfig(network=None).network is None
    with pytest.raises(ConfigError, match="network: got 'huge'; expected one of tiny, maisi"):
        FitVAEConfig(network="huge")
    assert FitVAEConfig.from_mapping({"kl_weight": "2e-4"}).kl_weight == 2e-4


@pytest.mark.parametrize("value", ["0.2", "0.8,0.2", "0.1,0.2,0.3"])
def test_a_guidance_interval_is_two_timesteps_in_order(value):
    with pytest.raises(ConfigError, match=r"guidance_interval: got .*; expected LOW,HIGH such as 0.2,0.8"):
        SampleConfig.from_mapping({"guidance_interval": value})
    assert SampleConfig.from_mapping({"guidance-interval": "0.2,0.8"}).guidance_interval == (0.2, 0.8)
