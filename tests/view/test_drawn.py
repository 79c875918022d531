"""Drawn once, and drawn again where the file is gone, another's, or asked for otherwise."""

import gc

from painted import make_trace

from scribblediffusion.view.drawn import Drawn


def test_it_is_drawn_when_the_file_does_not_show_it(tmp_path):
    one, other = make_trace(steps=1, grid=4), make_trace(steps=1, grid=4)
    drawn, path, times = Drawn(), tmp_path / "a.png", []

    def draws(trace, how):
        before = len(times)
        assert drawn.once(path, trace, how, lambda: times.append(path.write_text(how))) == path
        return len(times) > before

    assert draws(one, "light")
    assert not draws(one, "light")
    assert draws(one, "dark")
    assert draws(one, "light")
    assert draws(other, "light")
    assert draws(one, "light")
    path.write_text("by somebody else")
    assert draws(one, "light")
    path.unlink()
    assert draws(one, "light")
    assert not draws(one, "light")


def test_a_failed_drawing_is_not_remembered_and_traces_are_let_go(tmp_path):
    trace, drawn = make_trace(steps=1, grid=4), Drawn()
    drawn.once(tmp_path / "none.png", trace, "", lambda: None)
    made = []
    drawn.once(tmp_path / "none.png", trace, "", lambda: made.append(1))
    assert made
    gone = drawn._files[tmp_path / "none.png"].trace
    del trace
    gc.collect()
    assert gone() is None
