import pytest

from mmaib.datasets import checksummed

FILES = {'a/1.png': b'one', 'b.json': b'{}'}


def build(out, files=FILES, version=1):
    return checksummed.build(out, files.items(), version)


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob('*')
        if path.is_file()
    }


def test_built_once(tmp_path):
    assert build(tmp_path)
    before = contents(tmp_path)
    assert {**before, **FILES} == before
    assert set(before) - set(FILES) == {checksummed.SUMS}
    assert not build(tmp_path)
    assert contents(tmp_path) == before


def test_another_version_is_written_anew(tmp_path):
    build(tmp_path)
    newer = {**FILES, 'b.json': b'[]'}
    assert build(tmp_path, newer, version=2)
    assert (tmp_path / 'b.json').read_bytes() == b'[]'
    assert not build(tmp_path, newer, version=2)


@pytest.mark.parametrize('damage', [b'cut', None])
def test_damage_is_repaired_and_foreign_files_stay(tmp_path, damage):
    build(tmp_path)
    before = contents(tmp_path)
    (tmp_path / 'notes.txt').write_text('mine')
    if damage is None:
        (tmp_path / 'a/1.png').unlink()
    else:
        (tmp_path / 'a/1.png').write_bytes(damage)
    assert build(tmp_path)
    assert contents(tmp_path) == {**before, 'notes.txt': b'mine'}


def test_an_interrupted_build_is_not_complete(tmp_path):
    def interrupted():
        yield 'b.json', b'{}'
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checksummed.build(tmp_path, interrupted(), 1)
    assert not checksummed.is_complete(tmp_path, 1)
    assert build(tmp_path)


@pytest.mark.parametrize(
    'sums',
    ['{}', '[]', 'cut', '{"version": 1}', '{"version": 1, "files": []}'],
)
def test_checksums_that_say_nothing_are_not_trusted(tmp_path, sums):
    (tmp_path / checksummed.SUMS).write_text(sums)
    assert not checksummed.is_complete(tmp_path, 1)
