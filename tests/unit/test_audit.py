"""An audit passes an honest run and names what was changed in a dishonest one."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_rl import checkpoint
from spark_rl.audit import audit
from spark_rl.collect import collect
from spark_rl.config import load_config
from spark_rl.errors import RunError, UserError
from spark_rl.files import open_root
from spark_rl.policies import weights as codec
from spark_rl.rollout import run
from spark_rl.schema.parquet import encode
from spark_rl.train import train

PRESET = Path(__file__).parents[2] / "conf" / "ppo_cartpole.toml"
SMALL = ["rollout.envs_per_group=4", "rollout.steps_per_env=16", "evaluation.episodes=2", "run.env_steps=512"]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A finished run of four iterations."""
    train(load_config(PRESET, SMALL), str(tmp_path / "run"))
    run.forget()
    return tmp_path / "run"


def forge_rows(path: Path) -> None:
    """Give one row another reward, and correct the commit record's hash and size: a careful forger."""
    file = path / "transitions" / "iteration=2" / "part-00001.parquet"
    table = pq.ParquetFile(file).read()
    reward = table["reward"].to_numpy().copy()
    reward[3] += 1.0
    place = table.schema.get_field_index("reward")
    content = encode(table.set_column(place, table.schema.field(place), pa.array(reward)), "zstd")
    file.write_bytes(content)
    record = path / "_commits" / "2.json"
    commit = json.loads(record.read_text())
    for listed in commit["files"]:
        if (listed["table"], listed["name"]) == ("transitions", file.name):
            listed |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    record.write_text(json.dumps(commit))


def test_an_honest_run_passes_and_is_left_as_it_was(trained: Path) -> None:
    before = sorted(str(path) for path in trained.rglob("*"))
    result = audit(str(trained))
    assert (result["iterations"], result["policy_versions"], result["identical"]) == (4, 4, True)
    assert sorted(str(path) for path in trained.rglob("*")) == before


def test_a_changed_row_is_found_even_if_the_record_was_changed_with_it(trained: Path) -> None:
    forge_rows(trained)
    with pytest.raises(RunError, match=r"iteration 2, transitions/part-00001\.parquet"):
        audit(str(trained))


def test_changed_weights_are_found(trained: Path) -> None:
    file = trained / "policies" / "policy_version=3" / "weights.safetensors"
    tensors = codec.decode(file.read_bytes())
    name = "critic.head.bias"  # it does not act, so only learning again can tell
    file.write_bytes(codec.encode(tensors | {name: tensors[name] + 1e-6}))
    assert audit(str(trained), learn=False)["identical"]
    with pytest.raises(RunError, match="weights of policy version 3"):
        audit(str(trained))


def test_one_iteration_can_be_audited_alone(trained: Path) -> None:
    result = audit(str(trained), iterations=[2])
    assert result["iterations"] == 1 and result["policy_versions"] >= 1


def test_learning_begins_at_a_checkpoint_before_the_audited_iteration(trained: Path) -> None:
    root = open_root(str(trained))
    kept = checkpoint.newest(root, [0, 1, 2])
    assert kept is not None and kept.iteration == 2
    assert audit(str(trained), iterations=[3])["policy_versions"] == 1


def test_an_iteration_that_is_not_there_is_refused(trained: Path) -> None:
    with pytest.raises(UserError, match=r"iterations \[7\]"):
        audit(str(trained), iterations=[7])


def test_a_collection_is_audited_without_a_learner(tmp_path: Path) -> None:
    collect(load_config(PRESET, SMALL), str(tmp_path / "run"))
    run.forget()
    result = audit(str(tmp_path / "run"))
    assert (result["iterations"], result["policy_versions"]) == (4, 0)


def test_a_pipelined_run_passes(tmp_path: Path) -> None:
    train(load_config(PRESET, [*SMALL, "rollout.pipelined=true"]), str(tmp_path / "run"))
    run.forget()
    assert audit(str(tmp_path / "run"))["policy_versions"] == 4
