"""What the command line says where something is odd: one line, without where in the code it comes from."""

import warnings

from minivdm.cli import sampling
from minivdm.cli.main import main


def test_a_warning_is_one_line(monkeypatch, capsys):
    def sample(args):
        warnings.warn("these weights were trained\non another size", stacklevel=1)
        return 0

    monkeypatch.setattr(sampling, "sample", sample)
    before = warnings.showwarning
    assert main(["sample"]) == 0
    assert capsys.readouterr().err == "minivdm: these weights were trained on another size\n"
    assert warnings.showwarning is before


def test_a_setting_that_is_no_text_is_named(tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "run"), "--set=--"]) == 2  # argparse makes a list of it
    assert "--set: expected a list of key=value" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
