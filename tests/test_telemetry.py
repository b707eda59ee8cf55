"""Whoever watches sees everything of his own run and nothing of another's."""

import threading

import pytest

from workbench import telemetry
from workbench.progress import progress
from workbench.telemetry import Point, Stopped, Watcher, watched


def test_nothing_happens_when_nobody_watches():
    telemetry.publish("loss", 1, 2.0)
    telemetry.publish_row({"seed": 0})
    telemetry.check_stop()
    assert not telemetry.is_watched()


def test_the_watcher_takes_points_and_rows_once_and_in_order():
    with watched(Watcher()) as watcher:
        telemetry.publish("loss", 1, 2.0)
        telemetry.publish("loss", 2, 1.5)
        telemetry.publish_row({"seed": 0})
    assert watcher.take_points() == [Point("loss", 1.0, 2.0), Point("loss", 2.0, 1.5)]
    assert watcher.take_points() == []
    assert watcher.take_rows() == [{"seed": 0}]


def test_a_row_is_kept_as_it_was_when_it_was_published():
    row = {"seed": 0}
    with watched(Watcher()) as watcher:
        telemetry.publish_row(row)
        row["seed"] = 1
    assert watcher.take_rows() == [{"seed": 0}]


def test_two_threads_do_not_see_each_others_points():
    watchers = [Watcher(), Watcher()]
    both_watch = threading.Barrier(2, timeout=30)

    def work(index):
        with watched(watchers[index]):
            both_watch.wait()
            telemetry.publish("loss", 0, index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[point.value for point in watcher.take_points()] for watcher in watchers] == [[0.0], [1.0]]


def test_the_wish_to_stop_arrives_at_the_next_look():
    with watched(Watcher()) as watcher:
        telemetry.check_stop()
        watcher.stop()
        with pytest.raises(Stopped):
            telemetry.check_stop()
    telemetry.check_stop()  # not watched any more


def test_a_loop_under_progress_says_how_far_it_is_and_stops_without_losing_an_item():
    done = []
    with watched(Watcher()) as watcher, pytest.raises(Stopped):
        for item in progress("abc", label="letters"):
            assert watcher.doing == f"letters {len(done)} of 3"
            done.append(item)
            if item == "b":
                watcher.stop()
    assert done == ["a", "b"]
    assert watcher.doing == "letters 2 of 3"
