"""A simulated provider: a chat model that costs nothing, knows some tasks and errs as models do.

It is a fake, for tests, demonstrations and the data that ships with the project; what it says of a
real model's name is not a measurement of that model. An answer comes from the published skill of
the model by domain, the difficulty of the task, the role, and what the prompt says: a peer's right
or wrong answer, a plan that hits or misses the point, a critique, a report of failing tests. So
what a topology gains or loses comes out of the messages that it really passes.

    models.py      what is known of each model        situation.py  what a prompt says
    tasks.py       what the provider knows            speaking.py   what is said to it
    questions.py   which task a question is about     steps.py      work in numbered steps
    judgement.py   right or wrong, and why            replies.py    the text of a reply
    provider.py    the ChatModel, faults, billing
"""

from masrouter.llms.simulated.models import SimulatedModel, published_models
from masrouter.llms.simulated.provider import Faults, SimulatedProvider
from masrouter.llms.simulated.tasks import SimulatedTask

__all__ = [
    "Faults",
    "SimulatedModel",
    "SimulatedProvider",
    "SimulatedTask",
    "published_models",
]
