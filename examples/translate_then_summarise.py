"""Workers: a translation and a summarisation model of Hugging Face do what they are described for.

    pip install 'masrouter[transformers,offline]'
    python examples/translate_then_summarise.py [--translator MODEL --summariser MODEL]

MODEL is a folder, or a name on the hub (for T5, Marian and the like see `Generation`). Without
them two toys are made first. Prints the steps of the request, who does each, and what came of it.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from tiny_models import make_summariser, make_translator

from masrouter.delegation.delegator import Delegator
from masrouter.delegation.tasks import Batch
from masrouter.delegation.workers.hugging_face import summarisation_worker, translation_worker
from masrouter.delegation.workers.matching import plan_steps
from masrouter.encoder import load_encoder
from masrouter.llms.simulated import SimulatedProvider

REQUEST = "translate this technical document and summarise it"
DOCUMENT = """\
the red pump heats the line . after the machine stops , the valve opens .

the battery never stops . then the small lamp turns again .
"""


async def work(translator: str | Path, summariser: str | Path) -> Batch:
    """The request, done by the two models; nobody but their descriptions says which does what."""
    workers = (translation_worker(translator), summarisation_worker(summariser))
    tasks = plan_steps(REQUEST, workers, load_encoder(), context=DOCUMENT)
    for task in tasks:
        print(f"{task.id}: {task.goal!r} fits {task.model}")
    # In the place of chat models, which this request does not need.
    delegator = Delegator(SimulatedProvider([]), workers=workers)
    return await delegator.delegate_tasks(tasks, budget_usd=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--translator", metavar="MODEL")
    parser.add_argument("--summariser", metavar="MODEL")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        translator = given.translator or make_translator(Path(folder) / "translator")
        summariser = given.summariser or make_summariser(Path(folder) / "summariser")
        batch = asyncio.run(work(translator, summariser))
    for result in batch.results:
        print(f"\n{result.id} by {', '.join(result.models)}, {result.usage.cost_usd} US$:")
        print(result.answer if result.error is None else result.error.message)


if __name__ == "__main__":
    main()
