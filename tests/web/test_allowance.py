from scribblediffusion.web.allowance import Allowance


def test_each_address_has_its_own_share_and_time_gives_it_back():
    now = [0.0]
    share = Allowance(100, 60, clock=lambda: now[0])
    share.count("a", 70)
    now[0] = 40
    share.count("a", 50)
    assert share.left("a") == -20
    assert share.left("b") == 100
    now[0] = 61  # the first 70 are a minute old
    assert share.left("a") == 50
    now[0] = 101
    assert share.left("a") == 100
    assert not share._sent  # nothing is remembered of whoever went


def test_all_of_them_are_summed_up_and_small_pieces_are_one():
    now = [0.0]
    share = Allowance(100, 60, clock=lambda: now[0])
    for piece in range(1000):
        now[0] = piece / 2000
        share.count("a", 1)
    share.count("b", 5)
    assert share.sent() == 1005
    assert len(share._sent["a"]) == 1
    now[0] = 61
    assert share.sent() == 0
