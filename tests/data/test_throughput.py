from loopwm.data.throughput import collection_speed


def test_the_speed_of_collecting_is_told_beside_that_of_stepping() -> None:
    speed = collection_speed("InvertedPendulum-v5", 400, 1)
    assert speed["ratio"] == speed["collect"] / speed["sync_vector_env"]
    assert speed["ratio_bare"] == speed["collect"] / speed["sync_bare"]
    assert min(speed.values()) > 0
    assert collection_speed("Pendulum-v1", 400, 1, {"g": 9.81})["collect"] > 0
