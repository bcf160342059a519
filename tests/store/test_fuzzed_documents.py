"""Documents of a cache with any bit changed: each is refused in one line or read as it was."""

import json
import random
import shutil
from dataclasses import replace
from itertools import product

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.store.damage import RECORD_B, ROOT, commit_as_it_is, flip
from tests.thorough import is_thorough, some_of
from vidlat.cli import commands
from vidlat.errors import VidlatError
from vidlat.store.layout import LEASE, MANIFEST
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.reader import open_cache
from vidlat.store.records.manifest import read_manifest
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import verify_cache

DOCUMENTS = [ROOT, "mean/zarr.json", "videos/zarr.json", MANIFEST, RECORD_B]


def read_records(path):
    cache = open_cache(path)
    return cache.records(), cache.failures(), cache.annotations(), cache.sources(), cache.warnings()


def read_it_all(path):
    """What any command may do with the documents; only our own errors may end it."""
    for read in (read_records, lambda path: list(verify_cache(path)), plan_prune):
        try:
            read(path)
        except VidlatError as error:
            if "\n" in str(error):
                pytest.fail(f"more than a line: {error}")
    for arguments in (["info"], ["ls", "--json"]):
        answer = CliRunner().invoke(commands, [arguments[0], str(path), *arguments[1:]])
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
        assert answer.stderr.count("\n") <= 1


def fuzz(pristine, path, where, num_flips, *, is_hostile=False):
    """Change one bit at a time; is_hostile: and make the manifest name the file as it is then."""
    rng = random.Random(f"{where} {is_hostile}")
    file, before = path / where, (pristine / where).read_bytes()
    manifest = (pristine / MANIFEST).read_bytes()
    for _ in range(num_flips):
        flip(file, rng.randrange(len(before)), rng.randrange(8))
        if is_hostile:
            commit_as_it_is(file)
        read_it_all(path)
        (path / MANIFEST).write_bytes(manifest)
        file.write_bytes(before)


@pytest.mark.parametrize("where", some_of(DOCUMENTS))
def test_flipped_bit_of_a_document_is_refused_in_a_line_or_changes_nothing(pristine, path, where):
    fuzz(pristine, path, where, 15 if is_thorough() else 5)


def test_flipped_bit_of_a_record_file_that_its_manifest_names_so_is_an_error_of_ours(pristine, path):
    fuzz(pristine, path, RECORD_B, 40 if is_thorough() else 13, is_hostile=True)


def test_metadata_of_a_column_that_contradict_each_other_do_not_end_the_process(pristine, path):
    content = (pristine / RECORD_B).read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    type_of_video_id = content.index(b"\x15\x0c", footer) + 1  # the first thing that arrow looks at
    for bit in range(8):
        (path / RECORD_B).write_bytes(content)
        flip(path / RECORD_B, type_of_video_id, bit)
        commit_as_it_is(path / RECORD_B)
        read_it_all(path)


@pytest.mark.slow
@pytest.mark.parametrize("where", DOCUMENTS)
def test_hundreds_of_flipped_bits(pristine, path, where):
    fuzz(pristine, path, where, 200)


@pytest.mark.slow
def test_hundreds_of_flipped_bits_of_hostile_record_files(pristine, path):
    fuzz(pristine, path, RECORD_B, 300, is_hostile=True)


DEEP = "[" * 100_000
CONTENTS = ["", "{", "[]", "null", "1e999", "{}", DEEP, '{"a":' * 50_000, "\x00", '"\ud800"', "9" * 10_000]


@pytest.mark.parametrize(
    ("where", "number"), some_of(product([ROOT, "std/zarr.json", MANIFEST, LEASE], range(len(CONTENTS))))
)
def test_json_of_any_kind_is_an_error_of_ours(path, where, number):
    content = CONTENTS[number]
    (path / where).write_text(content, errors="surrogatepass")
    read_it_all(path)


VALUES = [None, True, -1, 2**70, 1e300, "text", [], {}, [[1]], {"a": 1}]


@pytest.mark.parametrize("value", some_of(VALUES), ids=str)
def test_any_value_of_any_field_of_the_description_is_an_error_of_ours(pristine, path, value):
    """In the root and in its copy alike, whose checksum is right."""
    document = json.loads((pristine / ROOT).read_text())
    manifest = read_manifest(local_cache(path))
    description = document["attributes"]["vidlat"]
    places = [(description, name) for name in description]
    places += [(description["settings"], name) for name in description["settings"]]
    for place, name in some_of(places):
        before = place[name]
        place[name] = value
        (path / ROOT).write_text(json.dumps(document))
        (path / MANIFEST).write_bytes(replace(manifest, description=description).to_json())
        read_it_all(path)
        place[name] = before


def write_with_checksum(file, manifest):
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    file.write_text(json.dumps(manifest | {"crc32c": google_crc32c.value(canonical)}))


@pytest.mark.parametrize("value", some_of(VALUES), ids=str)
def test_any_value_of_any_field_of_the_manifest_is_an_error_of_ours(path, value):
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["crc32c"]
    for place in (manifest, manifest["files"][0]):
        for name in list(place):
            before = place[name]
            place[name] = value
            write_with_checksum(path / MANIFEST, manifest)
            read_it_all(path)
            place[name] = before


def test_link_out_of_the_cache_is_no_record_file(path, tmp_path):
    shutil.move(path / RECORD_B, tmp_path / "outside.parquet")
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["crc32c"]
    outside = ["../outside.parquet", str(tmp_path / "outside.parquet"), f"videos/records/../../{RECORD_B}"]
    for where in outside:
        manifest["files"][0]["where"] = where
        write_with_checksum(path / MANIFEST, manifest)
        with pytest.raises(VidlatError, match="which is no record file"):
            open_cache(path)


def test_record_file_whose_rows_share_one_long_text_is_refused(path):
    row = pq.ParquetFile(path / RECORD_B).read()
    table = pa.concat_tables([row] * 20_000)
    index = table.schema.get_field_index("source_path")
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), [" " * 300_000])  # 6 GB
    bomb = table.set_column(index, "source_path", texts)
    pq.write_table(
        bomb, path / RECORD_B, compression="zstd", use_dictionary=["source_path"], store_schema=False
    )
    commit_as_it_is(path / RECORD_B)
    assert (path / RECORD_B).stat().st_size < 2_000_000
    with pytest.raises(VidlatError, match="a page is not of plain values"):
        read_records(path)
    read_it_all(path)


def test_record_file_whose_texts_begin_alike_is_refused(path):
    """By deltas each text of a million letters takes some bytes, and the footer counts those."""
    table = pa.concat_tables([pq.ParquetFile(path / RECORD_B).read()] * 100)
    index = table.schema.get_field_index("source_path")
    bomb = table.set_column(index, table.schema.field(index), pa.array(["A" * 1_000_000] * 100))
    options = {"use_dictionary": False, "column_encoding": {"source_path": "DELTA_BYTE_ARRAY"}}
    pq.write_table(bomb, path / RECORD_B, compression="zstd", write_statistics=False, **options)
    commit_as_it_is(path / RECORD_B)
    assert (path / RECORD_B).stat().st_size < 100_000
    with pytest.raises(VidlatError, match="a page is not of plain values"):
        read_records(path)
    read_it_all(path)


def test_record_file_made_to_exhaust_memory_is_refused(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    index = table.schema.get_field_index("warnings")
    warnings = pa.array([[" " * 100_000_000]], table.schema.field(index).type)
    bomb = table.set_column(index, table.schema.field(index), warnings)
    pq.write_table(bomb, path / RECORD_B, compression="zstd", write_statistics=False, use_dictionary=False)
    commit_as_it_is(path / RECORD_B)
    assert (path / RECORD_B).stat().st_size < 2_000_000
    with pytest.raises(VidlatError, match="bytes unpack to 34 values of"):
        read_records(path)
    read_it_all(path)
