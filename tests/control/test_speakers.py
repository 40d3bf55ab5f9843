"""Who may speak: strangers are found at once, what a killed process left behind is no alarm."""

from __future__ import annotations

from embodied_vision.control.speakers import LEASE_S, UNKNOWN, Deciders, OwnTopics, Speaker

ME, OWN = "/arm", b"own"
STRANGER = Speaker(b"else", "/rqt")
NAMESAKE = Speaker(b"before", ME)


def test_our_own_publisher_is_none_of_the_others() -> None:
    assert OwnTopics(ME, [OWN]).look("t", [Speaker(OWN, ME)], 0.0) is None


def test_a_stranger_is_found_at_once_and_named() -> None:
    found = OwnTopics(ME, [OWN]).look("arm/joint_trajectory", [Speaker(OWN, ME), STRANGER], 0.0)
    assert found is not None
    assert found.lives
    assert found.words == "/rqt publishes on arm/joint_trajectory as well"


def test_where_we_publish_nothing_everybody_is_a_stranger() -> None:
    assert OwnTopics(ME, []).look("t", [STRANGER], 0.0) is not None


def test_a_namesake_is_waited_out_and_then_lives() -> None:
    topics = OwnTopics(ME, [OWN])
    found = topics.look("t", [NAMESAKE], 10.0)
    assert found is not None
    assert not found.lives
    later = topics.look("t", [NAMESAKE], 10.0 + LEASE_S + 0.1)
    assert later is not None
    assert later.lives


def test_a_namesake_that_comes_again_is_waited_out_again() -> None:
    topics = OwnTopics(ME, [OWN])
    for start_s in (0.0, 100.0):
        found = topics.look("t", [NAMESAKE], start_s)
        assert found is not None
        assert not found.lives
        assert topics.look("t", [], start_s + 1.0) is None


def test_of_two_the_one_that_lives_counts() -> None:
    found = OwnTopics(ME, [OWN]).look("t", [NAMESAKE, STRANGER], 0.0)
    assert found is not None
    assert "/rqt" in found.words


def test_a_publisher_whose_name_is_not_known_yet_is_a_stranger() -> None:
    found = OwnTopics(ME, [OWN]).look("t", [Speaker(b"\x01\x0f", UNKNOWN)], 0.0)
    assert found is not None
    assert found.lives
    assert "GID 010f" in found.words


POLICY, AGAIN = Speaker(b"1", "/policy"), Speaker(b"2", "/policy")


def test_the_only_sender_is_heard_and_a_silent_publisher_is_let_be() -> None:
    deciders = Deciders()
    for _ in range(3):
        assert deciders.heard("pick_place", b"1", [POLICY, STRANGER]) == ""


def test_a_second_sender_is_named() -> None:
    deciders = Deciders()
    deciders.heard("pick_place", b"1", [POLICY])
    for _ in range(2):
        assert deciders.heard("pick_place", b"else", [POLICY, STRANGER]) == (
            "/rqt publishes on pick_place beside /policy"
        )
    assert deciders.heard("pick_place", b"1", [POLICY, STRANGER]) == ""


def test_a_sender_that_is_gone_may_be_replaced_by_any_other() -> None:
    deciders = Deciders()
    deciders.heard("t", b"1", [POLICY])
    assert deciders.heard("t", b"else", [STRANGER]) == ""


def test_a_restarted_node_takes_the_place_of_what_is_left_of_it() -> None:
    deciders = Deciders()
    deciders.heard("t", b"1", [POLICY])
    assert deciders.heard("t", b"2", [POLICY, AGAIN]) == ""
    assert deciders.heard("t", b"2", [AGAIN]) == ""


def test_two_of_one_name_that_both_speak_are_two() -> None:
    deciders = Deciders()
    deciders.heard("t", b"1", [POLICY])
    deciders.heard("t", b"2", [POLICY, AGAIN])
    assert deciders.heard("t", b"1", [POLICY, AGAIN]) == "/policy publishes on t beside /policy"


def test_nameless_senders_do_not_pass_for_each_other() -> None:
    deciders, nameless = Deciders(), [Speaker(b"1", UNKNOWN), Speaker(b"2", UNKNOWN)]
    deciders.heard("t", b"1", nameless)
    assert "GID 32" in deciders.heard("t", b"2", nameless)


def test_after_a_stop_whoever_speaks_next_is_the_one() -> None:
    deciders = Deciders()
    deciders.heard("t", b"1", [POLICY])
    deciders.forget()
    assert deciders.heard("t", b"else", [POLICY, STRANGER]) == ""
