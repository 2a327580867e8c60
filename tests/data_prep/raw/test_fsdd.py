from data_prep.raw.fsdd import find_recordings, split_recordings
from tests.data_prep.raw_files import write_fsdd


def test_real_recordings(shared_data):
    recordings = find_recordings(shared_data / "fsdd")
    assert len(recordings) == 3000
    assert recordings == find_recordings(shared_data / "fsdd" / "recordings") == sorted(recordings)
    assert {r.speaker for r in recordings} == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
    for recording in recordings[::97]:
        assert recording.path.name == f"{recording.digit}_{recording.speaker}_{recording.index}.wav"


def test_only_the_speakers_and_takes_wanted(tmp_path):
    write_fsdd(tmp_path, speakers=("theo", "lucas"))
    (tmp_path / "recordings" / "6_theo_50.wav").touch()  # FSDD once had such a 51st recording
    (tmp_path / "recordings" / "0_lucas_1.wav").unlink()  # not asked for
    (tmp_path / "recordings" / "README.md").touch()
    recordings = find_recordings(tmp_path, ("theo",))
    assert [(r.digit, r.speaker, r.index) for r in recordings] == [(d, "theo", i) for d in range(10) for i in range(50)]


def test_split(digits):
    recordings = find_recordings(digits / "fsdd")
    splits = split_recordings(recordings, range(5))
    assert {r.index for r in splits["test"]} == set(range(5))
    assert {r.index for r in splits["train"]} == set(range(5, 50))
    assert sorted(splits["train"] + splits["test"]) == recordings
