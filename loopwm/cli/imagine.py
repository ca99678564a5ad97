"""`loopwm imagine`: one episode, imagined and real side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from loopwm.cli.choice import Refinement
from loopwm.cli.screen import say
from loopwm.cli.stored import load_dataset, load_model, refuse_other_spaces
from loopwm.core.halt import OutputDelta
from loopwm.errors import ConfigError, LoopwmError

# A fixed number of iterations would make the plot of iterations a flat line.
HALT = OutputDelta()

if TYPE_CHECKING:
    import numpy as np

    from loopwm.data.store import RolloutDataset
    from loopwm.study.episode import Episode


@dataclass(frozen=True)
class Imagine:
    """Imagine an episode under the actions really taken, and show it beside what happened.

    Writes a plot of every observation dimension, one of the iterations at each step, and, where
    MuJoCo can draw, a video of the real and the imagined motion side by side, the iterations of
    each step below.

    Examples:
      loopwm imagine runs/hopper data/test --out figures/hopper
      loopwm imagine runs/hopper data/test --episode 7 --horizon 200 --tol 0.02 --out figures/seven

    Args:
        model: The model.
        data: Dataset: a directory, or minari:ID.
        out: Directory to write to.
        horizon: Steps to imagine, after the context.
        episode: Number of the episode; by default the longest one.
        start: Step of the episode at which to begin.
        context: Real observations that the model sees before it imagines.
        refinement: How far the loop refines; the plot of iterations lets it halt in any case.
        no_video: Write no video.
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    data: Annotated[Positional[str], arg(metavar="DATA")]
    out: Path
    horizon: int = 100
    episode: Annotated[int | None, arg(metavar="INT")] = None
    start: int = 0
    context: int = 1
    refinement: Annotated[Refinement, arg(name="")] = Refinement()
    no_video: bool = False

    def run(self) -> None:
        """Imagine, draw and write."""
        rule = self.refinement.rule()
        if self.horizon < 1:
            raise ConfigError(f"--horizon must be at least 1, got {self.horizon}")
        model, data = load_model(self.model), load_dataset(self.data)
        refuse_other_spaces(model, data)
        from loopwm.study.episode import imagine_episode, predict_episode
        from loopwm.study.openloop import Imagination
        from loopwm.study.trace import has_loop

        loops = has_loop(model)
        if rule is not None and not loops:
            raise ConfigError(f"{self.model} has no loop for --tol or --iterations to end")
        how = Imagination(context=self.context, halt=rule)
        row, steps = self.first_row(data), self.horizon + self.context - 1
        episode = imagine_episode(model, data, row, steps, how)
        single = predict_episode(model, data, row, steps, Imagination(halt=rule or HALT))
        self._draw(episode, single if loops else None)
        if not self.no_video:
            # Iterations are counted from the truth, as in their plot.
            self._film(data, episode, single.iterations)

    def first_row(self, data: "RolloutDataset") -> int:
        """Return the row at which imagination begins.

        Raises:
            ConfigError: If the dataset has no such episode, or the episode no such step.
        """
        lengths = data.bounds[1:] - data.bounds[:-1]
        episode = int(lengths.argmax()) if self.episode is None else self.episode
        if not 0 <= episode < data.num_episodes:
            raise ConfigError(f"--episode must lie in 0..{data.num_episodes - 1}, got {episode}")
        if not 0 <= self.start < lengths[episode]:
            raise ConfigError(
                f"--start must lie in 0..{lengths[episode] - 1}, the steps of episode {episode}, "
                f"got {self.start}"
            )
        return int(data.bounds[episode]) + self.start

    def _draw(self, episode: "Episode", single: "Episode | None") -> None:
        from loopwm.files import write_file
        from loopwm.study.canvas import png
        from loopwm.study.plot import plot_episode, plot_iterations

        figures = {"imagined.png": plot_episode(episode)}
        if single is None:
            say("no plot of iterations: the model has no loop")
        else:
            figures["iterations.png"] = plot_iterations(single)
        for name, figure in figures.items():
            write_file(self.out / name, png(figure))
            say(f"wrote {self.out / name}")

    def _film(self, data: "RolloutDataset", episode: "Episode", iterations: "np.ndarray") -> None:
        from loopwm.study.video import write_video

        path = self.out / "video.mp4"
        try:
            say(f"wrote {write_video(path, episode, data.meta, iterations=iterations)}")
        except LoopwmError as error:
            # Not every machine can draw and not every environment can be drawn.
            say(f"no video: {error}")
