"""The config: what a file may say, what it becomes, and the line a mistake gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spark_rl import registry
from spark_rl.config import RunConfig, difference, load_config
from spark_rl.config_input import parse_value, set_values
from spark_rl.errors import UserError
from spark_rl.redaction import REDACTED, is_secret, redact

PRESETS = sorted((Path(__file__).parents[2] / "conf").glob("*.toml"))
CARTPOLE = next(path for path in PRESETS if path.name == "ppo_cartpole.toml")


def load(*overrides: str) -> RunConfig:
    return load_config(CARTPOLE, overrides)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid_and_survives_its_own_json(path: Path) -> None:
    config = load_config(path)
    stored = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert RunConfig.from_dict(stored) == config
    assert RunConfig.from_dict(stored).sha256 == config.sha256
    assert difference(stored, config) == []


def test_derived_numbers() -> None:
    config = load("rollout.num_groups=3", "rollout.envs_per_group=5", "rollout.steps_per_env=7", "run.env_steps=524")
    assert (config.num_envs, config.rows_per_iteration) == (15, 105)
    assert config.num_iterations == 4  # 420 of 524: whole iterations only


def test_a_config_is_frozen() -> None:
    config = load()
    with pytest.raises(ValidationError, match="frozen"):
        config.rollout.num_groups = 3  # type: ignore[misc]


def test_the_algorithm_section_belongs_to_the_algorithm() -> None:
    config = load("algorithm.clip=0.1")
    assert isinstance(config.algorithm, registry.load("ppo").Config)
    assert config.algorithm_name == "ppo"
    assert config.algorithm.clip == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("rollout.step_per_env=3", "[rollout]: got the unknown key 'step_per_env'; wanted one of num_groups, "),
        ("rollout.step_per_env=3", "; did you mean 'steps_per_env'?"),
        ("algorithm.clipp=0.1", "[algorithm]: got the unknown key 'clipp'; "),
        ("algorithm.clipp=0.1", "; did you mean 'clip'?"),
        ("rolout.num_groups=3", "ppo_cartpole.toml: got the unknown section 'rolout'; "),
        ("rolout.num_groups=3", "; did you mean 'rollout'?"),
        ("run.zzz=3", "; correct it or take it out"),
        ("rollout.num_groups=0", "[rollout] num_groups: got 0; wanted a number greater than or equal to 1; "),
        ("rollout.num_groups=2.0", "[rollout] num_groups: got 2.0; wanted a valid integer"),
        ("rollout.num_groups=true", "[rollout] num_groups: got True; wanted a valid integer"),
        ('rollout.num_groups="2"', "[rollout] num_groups: got '2'; wanted a valid integer"),
        ("rollout.pipelined=1", "[rollout] pipelined: got 1; wanted a valid boolean"),
        ("rollout.deadline_s=inf", "[rollout] deadline_s: got inf; wanted a finite number"),
        ("algorithm.learning_rate=inf", "[algorithm] learning_rate: got inf; wanted a finite number"),
        ("algorithm.learning_rate=fast", "[algorithm] learning_rate: got 'fast'; wanted a valid number"),
        ("algorithm.name=pppo", "algorithm.name: got 'pppo'; wanted one of: "),
        ("algorithm.name=[1]", "algorithm.name: got [1]; wanted one of: "),
        ("policy.activation=gelu", "[policy] activation: got 'gelu'; wanted 'tanh' or 'relu'"),
        ("policy.hidden=[64, 0]", "[policy] hidden.1: got 0; wanted a number greater"),
        ("policy.hidden=64", "[policy] hidden: got 64; wanted an array"),
        ("learner.device=tpu", "[learner] device: got 'tpu'; wanted text to match"),
        ("env.id=''", "[env] id: got ''; wanted text of at least 1 character"),
        ("env.kwargs.x=nan", "[env] kwargs.x: got nan; wanted a finite number; change env.kwargs.x in"),
        ("env.wrappers=[{entry_point='Name'}]", "[env] wrappers.0.entry_point: got 'Name'; wanted text to match"),
        ("env.wrappers=[{entry_point='a:B', kwarg={}}]", "[env]: got the unknown key 'wrappers.0.kwarg'; correct it"),
        ("run.env_steps=7", "[run] env_steps: got 7; wanted at least one iteration of "),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_its_value_and_what_is_wanted(override: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        load(override)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_key_says_how_to_give_it() -> None:
    with pytest.raises(UserError, match=r"config \[env\]: got no 'id'; .* --set env\.id=VALUE"):
        RunConfig.from_dict({})


def test_a_section_that_is_no_table() -> None:
    with pytest.raises(UserError, match=r"\[rollout\]: got 3; wanted a table"):
        RunConfig.from_dict({"env": {"id": "CartPole-v1"}, "rollout": 3})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), (b"seed = = 1", "not TOML .*line 1"), (b"\xff", "not TOML"), (b"", "got no 'id'")],
)
def test_a_bad_file(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))


# ---- --set ----


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1), ("1_000", 1000), ("true", True), ("[64, 64]", [64, 64]), ('"0.1"', "0.1"), ("{a = 1}", {"a": 1}),
        ("CartPole-v1", "CartPole-v1"), ("4x4", "4x4"), ("", ""), ("2024-01-01", "2024-01-01"), ("a = b", "a = b"),
        ("1\nother = 2", "1\nother = 2"),
    ],
)  # fmt: skip
def test_values_are_toml_or_else_the_text_itself(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.text())
def test_any_text_is_some_value(text: str) -> None:
    parse_value(text)


@given(st.recursive(st.integers(-(2**53), 2**53) | st.booleans(), lambda inner: st.lists(inner, max_size=3)))
def test_json_of_simple_values_reads_back(value: object) -> None:
    assert parse_value(json.dumps(value)) == value


def test_later_overrides_win_and_the_original_stays() -> None:
    tables = {"run": {"seed": 1}}
    assert set_values(tables, ["run.seed=2", "run.seed = 3", "env.kwargs.a.b=x=y"]) == {
        "run": {"seed": 3},
        "env": {"kwargs": {"a": {"b": "x=y"}}},
    }
    assert tables == {"run": {"seed": 1}}


@pytest.mark.parametrize("override", ["run", "run=3", "=3", "run.=3", ".seed=3", "run.seed"])
def test_an_override_needs_section_key_and_value(override: str) -> None:
    with pytest.raises(UserError, match=r"--set: got .*; wanted SECTION\.KEY=VALUE"):
        load(override)


def test_an_override_below_a_value() -> None:
    with pytest.raises(UserError, match="wanted a table at 'seed', which is a value"):
        load("run.seed.x=1")


# ---- identity ----


def test_difference_names_the_keys_and_both_values() -> None:
    one = load("rollout.num_groups=2", "policy.hidden=[64, 64]")  # whatever the preset says today
    other = load("rollout.num_groups=4", "env.kwargs.gravity=9.8", "policy.hidden=[32]")
    assert difference(one, other) == [
        "env.kwargs.gravity: (absent) -> 9.8",
        "policy.hidden: [64, 64] -> [32]",
        "rollout.num_groups: 2 -> 4",
    ]
    assert difference(one.to_public_dict(), other) == difference(one, other)


def test_the_hash_is_of_the_content() -> None:
    assert load().sha256 == load("rollout.num_groups=2").sha256
    assert load().sha256 != load("rollout.num_groups=4").sha256


# ---- credentials ----


def test_what_is_written_down_holds_no_credential() -> None:
    config = load("env.kwargs.db_password=hunter2", "env.kwargs.nested.apiToken=hunter2", "env.kwargs.key_color=red")
    public = config.to_public_dict()["env"]["kwargs"]
    assert public == {"db_password": REDACTED, "nested": {"apiToken": REDACTED}, "key_color": "red"}
    assert config.env.kwargs["db_password"] == "hunter2"  # the environment itself gets it
    assert "hunter2" not in "".join(difference(load(), config))
    stored = RunConfig.from_dict(config.to_public_dict())
    assert stored.sha256 == config.sha256
    assert difference(stored, config) == []


@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "apiToken", "access-key", "key", "secretKey", "s3_secret", "APIKey"]
)
def test_secret_keys(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize("key", ["key_color", "num_keys", "monkey", "tokenize", "keyboard", "map_name", ""])
def test_keys_that_are_no_secrets(key: str) -> None:
    assert not is_secret(key)


def test_redaction_leaves_numbers_and_goes_into_lists() -> None:
    assert redact({"token": 3, "a": [{"token": "x"}, "y"], "secret": ""}) == {
        "token": 3,
        "a": [{"token": REDACTED}, "y"],
        "secret": "",
    }
