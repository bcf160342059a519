"""A run's config.json from anywhere: it is read, or refused in one line that names it."""

import copy
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.train.test_conditioning import LENGTHS, TABLE
from tests.train.toys import CacheMaker, build_small
from vidlat.config import TrainConfig
from vidlat.errors import TrainError
from vidlat.train.runs.frozen_run import Run
from vidlat.train.runs.run_folder import checkpoint_folder, load_run, read_run
from vidlat.train.trainer import Trainer

MUCH = 2**40
MANY_EXAMPLES = settings(max_examples=4000)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run with conditions and a checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    cache = CacheMaker(folder / "l.zarr").add(LENGTHS)
    config = TrainConfig(
        frames=8, batch=2, steps=2, device="cpu", condition=("kind",), validation_fraction=0.3
    )
    list(Trainer(config, cache, folder / "run", labels=TABLE, build_model=build_small).steps())
    return folder / "run"


@pytest.fixture(scope="module")
def document(made):
    return json.loads((made / "config.json").read_text())


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """A folder with the checkpoints of that run, for another config.json."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "checkpoints").symlink_to(checkpoint_folder(made))
    return folder


def changed(document, path, value):
    """A copy in which the value at a path of keys is another one; `...` takes it out."""
    document = copy.deepcopy(document)
    *parents, last = path.split(".") if isinstance(path, str) else path
    inner = document
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


def refusal(run):
    """The line with which a run is refused, empty where it loads."""
    try:
        load_run(run, build_model=build_small)
    except TrainError as error:
        return str(error)
    return ""


def require_named(line, *names):
    """A refusal, if there is one, is a line that names the file."""
    assert len(line.splitlines()) <= 1
    assert len(line) < 3000
    assert not line or any(name in line for name in names)


def read(folder, content):
    """The line with which a config.json of this content is refused, empty where it is read."""
    path = folder / "config.json"
    path.write_bytes(content)
    line = refusal(folder)
    require_named(line, str(path), "checkpoints")
    return line


def test_what_a_run_wrote_is_read(made, document):
    assert json.loads(json.dumps(read_run(made).to_dict())) == document
    assert Run.from_document(document).conditions.num_features == 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("config.batch", MUCH, "batch: got 1099511627776; expected .* at most 100000"),
        ("config.frames", MUCH, "frames: got 1099511627776; expected .* at most 100000"),
        ("config.steps", 10**199, "steps: got a whole number of 662 bits"),
        ("config.steps", 10**400, "steps: got a whole number of 1329 bits"),
        ("config.learning_rate", 1e300, r"learning_rate: got 1e\+300"),
        ("config.learning_rate", 10**400, "learning_rate: got a whole number of .* bits"),
        ("config.learning_rate", "fast", "learning_rate: got 'fast'"),
        ("config.precision", "auto", "precision: got 'auto'"),
        ("config.frames", 7, "frames: got 7; expected whole stacks of this cache, 4, 8, 12"),
        ("config.seed", -1, "seed: got -1"),
        ("config.condition", "kind", "condition: got 'kind'"),
        ("config", [], r"config: got \[\]; expected an object"),
        ("median_fps", "25", "median_fps: got '25'; expected a number from 0"),
        ("median_fps", 1e300, r"median_fps: got 1e\+300"),
        ("median_fps", -1, "median_fps: got -1"),
        ("median_fps", None, "median_fps: got None"),
        ("median_fps", ..., "has no median_fps"),
        ("whitening.mean", [0.0], "mean: got .*; expected 2 numbers"),
        ("whitening.mean", [0.0, "1"], "mean: got '1'"),
        ("whitening.mean", [0.0, 1e300], r"mean: got 1e\+300"),
        ("whitening.scale", [1.0, 0.0], "scale: got 0.0"),
        ("whitening.scale", [1.0, -1.0], "scale: got -1.0"),
        ("whitening", [], "whitening: got"),
        ("training", [], "do not list the same videos"),
        ("training", "abc", "training: got 'abc'"),
        ("training", [1], "training: got 1"),
        ("training", ["elsewhere.mp4"], "do not list the same videos"),
        ("validation", ["a.mp4"], "list"),
        ("training", ["dark_0.mp4"] * 2, "training and validation list a video twice"),
        ("latent_crc32c", {}, "do not list the same videos"),
        ("latent_crc32c", [], "latent_crc32c: got"),
        ("labels", {}, "do not list the same videos"),
        ("conditions", [{"name": "kind", "classes": []}], "classes: got"),
        ("conditions", [{"name": "kind", "classes": ["a", "a"]}], "classes: got"),
        ("conditions", [{"name": "kind", "mean": 0, "std": 0}], "std: got 0"),
        ("conditions", [{"name": "kind", "mean": 0}], "has no std"),
        ("conditions", [{"name": 1, "classes": ["a"]}], "name: got 1"),
        ("conditions", [{"name": "kind", "classes": ["a"]}] * 2, "two have one name"),
        ("duplicates", [["a"]], "duplicates: got"),
        ("cache.latent_dim", MUCH, "latent_dim: got 1099511627776"),
        ("cache.latent_dim", True, "latent_dim: got True"),
        ("cache.latent_height", MUCH, "latent_height: got"),
        ("cache.time_compression", 3, "stack: got 4; expected a multiple"),
        ("cache.vae_path", 3, "vae_path: got 3"),
        ("cache.vae_name", None, "vae_name: got None"),
        ("cache.settings.size", MUCH, "size: got|edited"),
        ("cache.settings", [], "damaged"),
        ("cache", [], "cache: got"),
    ],
)
def test_a_value_that_no_run_has_is_refused_by_name(folder, document, path, value, message):
    (folder / "config.json").write_text(json.dumps(changed(document, path, value)))
    with pytest.raises(TrainError, match=rf"config\.json cannot be read as a run's settings: .*({message})"):
        load_run(folder, build_model=build_small)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"config":' * 100_000, b"\xff", b"", b'{"a": 1, "a": 1}', b"9" * 10_000]
)
def test_what_is_no_plain_json_is_refused(folder, content):
    assert "cannot be read as a run's settings" in read(folder, content)


def places(value, path=()):
    """The paths of all values in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


ODD = st.sampled_from(
    [
        None, True, 0, -1, 1, 2**31, 2**63, MUCH, 10**200, 0.5, -1e300, 1e300, 5e-324, "", "x", "\0", "1",
        "\x1b[2J", "../..", "/etc/passwd", "x" * 5000, [], {}, [[]], [None], [1], {"": 0}, {"a": []}, ...,
    ]
)  # fmt: skip


def replace_a_value(data, document, folder):
    path = data.draw(st.sampled_from([path for path in places(document) if path]))
    content = changed(document, path, data.draw(ODD))
    read(folder, json.dumps(content).encode())


def flip_a_bit(data, document, folder):
    content = bytearray(json.dumps(document).encode())
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    read(folder, bytes(content))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("spoil", [replace_a_value, flip_a_bit])
def test_a_spoilt_document_is_read_or_refused_in_one_line(spoil, data, document, folder):
    spoil(data, document, folder)


@pytest.mark.slow
@given(data=st.data())
@settings(MANY_EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("spoil", [replace_a_value, flip_a_bit])
def test_thousands_of_spoilt_documents_are_read_or_refused_in_one_line(spoil, data, document, folder):
    spoil(data, document, folder)


@pytest.fixture(scope="module")
def checkpoint(made, tmp_path_factory):
    """A copy of the run whose checkpoint a test may spoil, and the bytes of each file of it."""
    run = tmp_path_factory.mktemp("spoilt") / "run"
    path = run / "checkpoints" / "step_00000002"
    path.mkdir(parents=True)
    (run / "config.json").write_bytes((made / "config.json").read_bytes())
    files = {file.name: file.read_bytes() for file in (checkpoint_folder(made) / path.name).iterdir()}
    # Without the checksums, which would refuse every file before it is read.
    files["state.json"] = b'{"step": 2, "num_skipped": 0, "validation_loss": null}'
    return run, path, files


def flip_a_bit_of_a_checkpoint(data, checkpoint):
    """Flip one in the header of a file, or in its numbers: it is loaded, or refused by the file's name."""
    run, path, files = checkpoint
    for name, content in files.items():
        (path / name).write_bytes(content)
    content = bytearray(files["ema.safetensors"])
    length = int.from_bytes(content[:8], "little")
    place = data.draw(st.integers(0, 8 * (8 + length) - 1) | st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    (path / "ema.safetensors").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_named(refusal(run), "ema.safetensors")


@given(data=st.data())
def test_a_bit_flipped_in_a_checkpoint_is_loaded_or_refused_in_one_line(data, checkpoint):
    flip_a_bit_of_a_checkpoint(data, checkpoint)


@pytest.mark.slow
@given(data=st.data())
@MANY_EXAMPLES
def test_thousands_of_bits_flipped_in_checkpoints_are_loaded_or_refused(data, checkpoint):
    flip_a_bit_of_a_checkpoint(data, checkpoint)
