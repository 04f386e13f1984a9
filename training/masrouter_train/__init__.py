"""Train masrouter: `fit(logs, config) -> Router`. Needs the extra `train`."""

from masrouter_train.config import ControllerConfig, CriticConfig, GateConfig, TrainConfig
from masrouter_train.fit import fit

__all__ = ["ControllerConfig", "CriticConfig", "GateConfig", "TrainConfig", "fit"]
