"""ARC as a source: every example drawn is one of the task's, shown as its id says."""

import numpy as np
import pytest
import torch

from loopwm.errors import ConfigError, DataError
from loopwm.reason.arc import Arc, ArcConfig
from loopwm.reason.augment import Augmentation, code
from loopwm.reason.grid import encode
from loopwm.reason.loss import IGNORED
from loopwm.reason.source import PuzzleSource
from loopwm.reason.tasks import Pair, Task

SIDE, AUGMENTATIONS = 7, 5


def task(name: str, seed: int, train: int, test: int) -> Task:
    """Make a task of grids of all shapes."""
    rng = np.random.default_rng(seed)

    def grid() -> np.ndarray:
        return rng.integers(0, 10, rng.integers(1, SIDE, 2), np.uint8)

    pairs = [Pair(grid(), grid()) for _ in range(train + test)]
    return Task(name, tuple(pairs[:train]), tuple(pairs[train:]))


TRAINING = [task("a", 0, 3, 1), task("b", 1, 2, 2)]
EVALUATION = [task("c", 2, 2, 3)]
TRAINED_ON = [(*t.train, *t.test) for t in TRAINING] + [EVALUATION[0].train]


def arc(**changes) -> Arc:
    return Arc(TRAINING, EVALUATION, ArcConfig(SIDE, AUGMENTATIONS, **changes))


def draw(source: Arc, count: int, seed: int = 0):
    return source.sample(torch.Generator().manual_seed(seed), count)


def places(name: str, k: int, pair: Pair):
    """Yield every way in which the slow functions lay an example on the canvas."""
    shown = Augmentation.of(code(name, 0, k))
    grids = [shown.apply(grid) for grid in (pair.input, pair.output)]
    rows, columns = np.max([grid.shape for grid in grids], axis=0)
    for top in range(SIDE - rows + 1):
        for left in range(SIDE - columns + 1):
            yield tuple(encode(grid, SIDE, (top, left)).tobytes() for grid in grids)


def test_every_example_drawn_is_what_the_slow_functions_make_of_one_and_all_are_drawn():
    source = arc()
    batch = draw(source, 6000)
    tasks = [*TRAINING, *EVALUATION]
    expected = {
        (t * AUGMENTATIONS + k, *canvases)
        for t, examples in enumerate(TRAINED_ON)
        for k in range(AUGMENTATIONS)
        for pair in examples
        for canvases in places(tasks[t].name, k, pair)
    }
    inputs = batch.tokens.numpy().astype(np.uint8)
    labels = np.where(batch.labels == IGNORED, 0, batch.labels).astype(np.uint8)
    drawn = {
        (i, x.tobytes(), y.tobytes())
        for i, x, y in zip(batch.puzzle_ids.tolist(), inputs, labels, strict=True)
    }
    assert drawn <= expected
    # A place of one example in one augmentation has a chance of a few in ten thousand.
    assert len(drawn) > 0.8 * len(expected)
    corner = {(i, x) for i, x, _ in drawn if x[0] >= 2}
    assert {i for i, _ in corner} == set(range(source.num_puzzles))


def test_labels_never_ask_for_padding():
    assert not (draw(arc(), 200).labels == 0).any()


def test_what_is_drawn_depends_on_the_generator_alone():
    first, again = draw(arc(), 50), draw(arc(), 50)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.puzzle_ids, again.puzzle_ids)
    assert not torch.equal(first.tokens, draw(arc(), 50, seed=1).tokens)


def test_without_translation_every_grid_lies_in_the_first_corner():
    assert (draw(arc(translate=0.0), 300).tokens[:, 0] >= 2).all()


def test_questions_are_shown_as_the_slow_functions_show_them_and_share_their_ids_with_examples():
    source = arc()
    questions = source.questions(AUGMENTATIONS)
    assert len(questions) == 3 * AUGMENTATIONS
    tokens, ids = source.ask(questions)
    for question, shown, puzzle in zip(questions, tokens, ids, strict=True):
        augmentation = Augmentation.of(code("c", 0, question.k))
        assert source.augmentation(question) == augmentation
        grid = augmentation.apply(EVALUATION[0].test[question.test].input)
        assert shown.tolist() == encode(grid, SIDE).tolist()
        assert puzzle == 2 * AUGMENTATIONS + question.k
    assert [q.k for q in source.questions(1)] == [0, 0, 0]


def shown_by(head: np.ndarray) -> Augmentation:
    """Return the augmentation that the tokens before a canvas tell of."""
    turn, *colours = head[:11].tolist()
    assert not head[11:].any()
    return Augmentation(turn - 12, tuple(colour - 2 for colour in colours))


def test_what_is_told_is_how_the_example_is_shown_and_the_id_is_the_tasks():
    source = arc(told=True)
    assert (source.vocabulary, source.length, source.num_puzzles) == (20, 14 + 49, 3)
    batch, plain = draw(source, 400), draw(arc(), 400)
    assert torch.equal(batch.puzzle_ids, plain.puzzle_ids // AUGMENTATIONS)
    assert torch.equal(batch.tokens[:, 14:], plain.tokens)
    assert torch.equal(batch.labels[:, 14:], plain.labels)
    assert (batch.labels[:, :14] == IGNORED).all()
    names = [task.name for task in (*TRAINING, *EVALUATION)]
    for head, puzzle in zip(batch.tokens[:, :14].numpy(), plain.puzzle_ids.tolist(), strict=True):
        task, k = divmod(puzzle, AUGMENTATIONS)
        assert shown_by(head) == Augmentation.of(code(names[task], 0, k))


def test_questions_are_told_how_they_are_shown_and_answers_read_behind_that():
    source = arc(told=True)
    questions = source.questions(AUGMENTATIONS)
    tokens, ids = source.ask(questions)
    assert set(ids.tolist()) == {2}
    for question, shown in zip(questions, tokens.numpy(), strict=True):
        augmentation = source.augmentation(question)
        assert shown_by(shown[:14]) == augmentation
        asked = EVALUATION[0].test[question.test].input
        np.testing.assert_array_equal(augmentation.undo(source.read(shown)), asked)


@pytest.mark.parametrize(("side", "rows"), [(3, 4), (11, 1), (12, 1), (30, 1)])
def test_what_is_told_takes_whole_rows_of_the_canvas(side: int, rows: int):
    assert ArcConfig(side, told=True).head == rows * side
    assert ArcConfig(side).head == 0


def test_the_source_keeps_the_contract_and_counts_its_ids():
    source = arc()
    assert isinstance(source, PuzzleSource)
    assert (source.vocabulary, source.length, source.num_puzzles) == (12, 49, 15)


@pytest.mark.parametrize(
    "changes", [{"side": 0}, {"side": 31}, {"augmentations": 0}, {"translate": 1.5}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        ArcConfig(**changes)


def test_more_questions_than_ids_are_refused():
    with pytest.raises(ConfigError, match=r"\[1, 5\]"):
        arc().questions(6)


def test_tasks_that_cannot_be_shown_are_refused():
    with pytest.raises(DataError, match="at least one task"):
        Arc([])
    with pytest.raises(DataError, match="comes twice"):
        Arc(TRAINING, TRAINING)
    with pytest.raises(DataError, match="side=3"):
        Arc(TRAINING, config=ArcConfig(side=3))
