"""The settings of a run, as frozen dataclasses; the presets, and the tables of algorithms and data sets."""

from innerloop.config.presets.registry import all_presets as all_presets
from innerloop.config.presets.registry import preset as preset
from innerloop.config.schema import Config as Config
from innerloop.config.schema import DataConfig as DataConfig
from innerloop.config.schema import EvaluationConfig as EvaluationConfig
from innerloop.config.schema import InnerConfig as InnerConfig
from innerloop.config.schema import ModelConfig as ModelConfig
from innerloop.config.schema import OuterConfig as OuterConfig
from innerloop.config.schema import RLConfig as RLConfig
from innerloop.config.serialization import from_json as from_json
from innerloop.config.serialization import to_json as to_json
from innerloop.config.specs import AlgorithmSpec as AlgorithmSpec
from innerloop.config.specs import DatasetSpec as DatasetSpec
