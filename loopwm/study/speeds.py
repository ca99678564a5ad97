"""Tables of speed: of imagination, and of collection."""

from loopwm.study.recipe import Computed, Options


def speed(options: Options) -> Computed:
    """Measure how fast models imagine."""
    from loopwm.study.bench import BenchConfig, bench_imagine

    options.report("imagination: a few minutes, most of them for torch.compile")
    method = (
        "Contestants take turns, so that a busy machine slows all of them alike; rates per CPU "
        "second are what a core to itself would give. All heads are decoded; weights are random.",
        "The bare cell is `core.refine` alone, as often as imagination applies it; the bare loop "
        "computes what depends on the injection once a step, as imagination does.",
    )
    return (), method, tuple(bench_imagine(BenchConfig()))


def collection(options: Options) -> Computed:
    """Measure how fast real experience is gathered."""
    from loopwm.study.collection import collection_sheet

    method = (
        "Uniform actions drawn beforehand, one process, the tasks that the fast path takes. The "
        "same rows by SyncVectorEnv: stepped, checked and made a dataset like those of `collect`. "
        "Keeping nothing: SyncVectorEnv is stepped and what it returns is dropped. The three take "
        "turns.",
    )
    return (), method, (collection_sheet(options.report),)
