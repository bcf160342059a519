import copy
import json
import math
import os
import shutil

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file, save_file

from tests.train.toys import SmallNetwork
from vidlat.errors import TrainError
from vidlat.train.runs import checkpoint
from vidlat.train.runs.checkpoint import (
    TrainState,
    load_checkpoint,
    load_ema,
    save_checkpoint,
    validation_loss_of,
)
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of


def make_state(latent_dim=2, seed=0):
    torch.manual_seed(seed)
    model = SmallNetwork(latent_dim)
    return TrainState(
        model=model, ema=copy.deepcopy(model), optimiser=torch.optim.AdamW(model.parameters(), lr=0.1)
    )


def take_step(state):
    latents = torch.linspace(-1, 1, 2 * 2 * 4 * 4).view(1, 2, 2, 4, 4)
    state.model(latents, torch.tensor([0.5])).square().sum().backward()
    state.optimiser.step()
    state.optimiser.zero_grad()
    state.step += 1


def assert_same_weights(one, other):
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


def test_a_loaded_state_continues_like_the_saved_one_to_the_last_bit(tmp_path):
    saved, loaded = make_state(seed=0), make_state(seed=1)
    take_step(saved)
    take_step(saved)
    load_checkpoint(save_checkpoint(tmp_path, saved), loaded)
    assert loaded.step == 2
    assert_same_weights(saved.ema, loaded.ema)
    take_step(saved)
    take_step(loaded)
    assert_same_weights(saved.model, loaded.model)


def test_averaged_weights_load_alone(tmp_path):
    saved, other = make_state(seed=0), make_state(seed=1)
    load_ema(save_checkpoint(tmp_path, saved), other.model)
    assert_same_weights(saved.ema, other.model)


def test_only_the_last_few_are_kept_in_the_order_of_their_steps(tmp_path):
    state = make_state()
    for step in (2, 10, 9, 100_000_000, 7 + 100_000_000):
        state.step = step
        save_checkpoint(tmp_path, state)
    kept = list_checkpoints(tmp_path)
    assert [step_of(path) for path in kept] == [10, 100_000_000, 100_000_007][-3:]


@pytest.mark.parametrize("num_written", [0, 1, 2])
def test_a_checkpoint_interrupted_half_way_is_ignored_and_written_again(tmp_path, monkeypatch, num_written):
    state = make_state()
    save_checkpoint(tmp_path, state)
    take_step(state)
    written = []

    def save_or_die(tensors, path):
        if len(written) == num_written:
            path.write_bytes(b"half of a fi")
            raise KeyboardInterrupt
        written.append(path)
        save_file(tensors, path)

    save_file = checkpoint.save_file
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, state)
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [0]
    load_checkpoint(save_checkpoint(tmp_path, state), make_state())
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [0, 1]


def test_a_missing_folder_has_no_checkpoints(tmp_path):
    assert list_checkpoints(tmp_path / "nothing") == []


@pytest.mark.parametrize("name", ["model", "ema", "optimiser"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name):
    state = make_state()
    take_step(state)
    file = save_checkpoint(tmp_path, state) / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TrainError, match=f"{name}.safetensors is damaged"):
        load_checkpoint(file.parent, make_state())


@pytest.mark.parametrize("name", ["model", "ema", "optimiser"])
@given(data=st.data())
def test_a_flipped_bit_is_noticed_wherever_it_is(trained, name, data):
    content = (trained / f"{name}.safetensors").read_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    spoilt = bytearray(content)
    spoilt[place // 8] ^= 1 << place % 8
    try:
        (trained / f"{name}.safetensors").write_bytes(spoilt)
        with pytest.raises(
            TrainError, match=rf"{name}\.safetensors is damaged \(its CRC32C is [0-9a-f]{{8}}"
        ):
            load_checkpoint(trained, make_state())
    finally:
        (trained / f"{name}.safetensors").write_bytes(content)
    load_checkpoint(trained, make_state())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint after one step."""
    state = make_state()
    take_step(state)
    return save_checkpoint(tmp_path_factory.mktemp("run"), state)


def test_a_damaged_checkpoint_is_refused_with_what_is_left_to_do(tmp_path):
    state, paths = make_state(), []
    for _ in range(2):
        take_step(state)
        paths.append(save_checkpoint(tmp_path, state))
    for path in paths:
        (path / "ema.safetensors").write_bytes(b"")
    advice = f"remove the folder {paths[1]} to go on from step_00000001"
    with pytest.raises(TrainError, match=f"{advice}$"):
        load_checkpoint(paths[1], make_state())
    shutil.rmtree(paths[1])
    advice = f"remove the folder {paths[0]} to start again: there is no other checkpoint"
    with pytest.raises(TrainError, match=f"{advice}$"):
        load_ema(paths[0], make_state().ema)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"crc32c": {}}', '{"crc32c": {"model.safetensors": "0"}}', '{"num_skipped": 2}']
)
def test_a_checkpoint_with_a_damaged_state_is_refused(tmp_path, content):
    state = make_state()
    take_step(state)
    path = save_checkpoint(tmp_path, state)
    (path / "state.json").write_text(content)
    with pytest.raises(TrainError, match="is damaged"):
        load_checkpoint(path, make_state())


class ChannelsLast(SmallNetwork):
    """The same, with the weights of its convolution in another order in memory."""

    def __init__(self, latent_dim):
        super().__init__(latent_dim)
        self.to(memory_format=torch.channels_last_3d)


def test_weights_that_are_not_contiguous_continue_to_the_last_bit(tmp_path):
    """The fused AdamW of a CPU takes a moment's strides for those of its parameter."""

    def make(seed):
        torch.manual_seed(seed)
        model = ChannelsLast(2)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        return TrainState(model=model, ema=copy.deepcopy(model), optimiser=optimiser)

    saved, loaded = make(0), make(1)
    assert not saved.model.mix.weight.is_contiguous()
    take_step(saved)
    load_checkpoint(save_checkpoint(tmp_path, saved), loaded)
    for _ in range(2):
        take_step(saved)
        take_step(loaded)
    assert_same_weights(saved.model, loaded.model)
    for parameter, moments in loaded.optimiser.state.items():
        assert parameter.stride() == moments["exp_avg"].stride() == moments["exp_avg_sq"].stride()


def resave(path, change):
    """Change the tensors of a file in a checkpoint of before, which states no checksums."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    state = json.loads((path.parent / "state.json").read_text())
    del state["crc32c"]
    (path.parent / "state.json").write_text(json.dumps(state))


def lose(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def set_to(name, value):
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.clear, "12 of 12 tensors differ, such as 0.step: got none, expected float32"),
        (lose("1.step", "1.exp_avg", "1.exp_avg_sq"), "3 of 12 tensors differ, such as 1.step"),
        (lose("0.exp_avg_sq"), "1 of 12 tensors differ, such as 0.exp_avg_sq"),
        (set_to("4.step", torch.zeros(())), r"such as 4.step: got float32 \(\), expected none"),
        (set_to("x", torch.zeros(())), "such as x"),
        (set_to("1.exp_avg", torch.zeros(3)), r"got float32 \(3,\), expected float32 \(2,\)"),
        (set_to("1.exp_avg", torch.zeros(2, dtype=torch.int8)), "got int8"),
        (set_to("1.exp_avg", torch.tensor([math.nan, 0])), "1.exp_avg holds numbers that are not finite"),
        (set_to("1.exp_avg_sq", torch.tensor([-1.0, 0])), "1.exp_avg_sq holds negative numbers"),
        (set_to("1.step", torch.tensor(-1.0)), "1.step is -1; expected 1"),
    ],
)
def test_an_optimiser_file_that_is_not_complete_is_refused(tmp_path, change, message):
    state = make_state()
    take_step(state)
    file = save_checkpoint(tmp_path, state) / "optimiser.safetensors"
    resave(file, change)
    with pytest.raises(TrainError, match=rf"optimiser\.safetensors is damaged \(.*{message}"):
        load_checkpoint(file.parent, make_state())


@pytest.mark.parametrize("name", ["model", "ema"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("mix.bias", torch.tensor([math.nan, 0])), "mix.bias holds numbers that are not finite"),
        (set_to("mix.bias", torch.tensor([0, math.inf])), "mix.bias holds numbers that are not finite"),
        (set_to("mix.bias", torch.zeros(2, dtype=torch.float64)), "got float64"),
        (dict.clear, "another network: 5 of 5 tensors differ"),
        (lose("mix.bias"), "another network: 1 of 5 tensors differ, such as mix.bias: got none"),
        (set_to("x", torch.zeros(())), "another network: 1 of 5 tensors differ, such as x"),
    ],
)
def test_weights_that_are_not_those_of_the_network_are_refused(tmp_path, name, change, message):
    file = save_checkpoint(tmp_path, make_state()) / f"{name}.safetensors"
    resave(file, change)
    with pytest.raises(TrainError, match=rf"{name}\.safetensors.*{message}"):
        load_checkpoint(file.parent, make_state())


@pytest.mark.parametrize("name", ["model", "ema", "optimiser"])
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, name):
    file = save_checkpoint(tmp_path, make_state()) / f"{name}.safetensors"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(TrainError, match=f"{name}.safetensors is damaged.*is a named pipe"):
        load_checkpoint(file.parent, make_state())


def test_a_pipe_in_the_place_of_a_state_counts_as_damaged(tmp_path):
    path = save_checkpoint(tmp_path, make_state(), validation_loss=0.5)
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")
    assert validation_loss_of(path) == math.inf


def test_a_folder_with_a_step_of_200_digits_is_no_checkpoint(tmp_path):
    (tmp_path / f"step_{'9' * 200}").mkdir()
    assert list_checkpoints(tmp_path) == []


def test_the_weights_of_another_network_are_refused(tmp_path):
    path = save_checkpoint(tmp_path, make_state(latent_dim=2))
    with pytest.raises(TrainError, match=r"another network.*mix\.weight"):
        load_checkpoint(path, make_state(latent_dim=3))


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(TrainError, match="cannot be written"):
        save_checkpoint(tmp_path / "checkpoints", make_state())
