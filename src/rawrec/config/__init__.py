"""Every setting of a run, typed. A component takes its own record, never the whole config.

Settings are resolved from the preset's YAML and `key.sub=value` overrides; an unknown key, a wrong type or an
impossible combination is a `UserError` that names the setting, the value and what would work.
"""

from rawrec.config.content import BankConfig, ContentConfig, FieldConfig, FusionConfig
from rawrec.config.heads import RANKERS
from rawrec.config.models import RETRIEVAL
from rawrec.config.page import describe
from rawrec.config.ranking import DotMlpConfig, RankerConfig
from rawrec.config.resolution import parse_overrides, presets, resolve
from rawrec.config.run import Config
from rawrec.config.training import DataConfig, EvalConfig, TrainConfig
from rawrec.config.validation import validate

__all__ = [
    "RANKERS",
    "RETRIEVAL",
    "BankConfig",
    "Config",
    "ContentConfig",
    "DataConfig",
    "DotMlpConfig",
    "EvalConfig",
    "FieldConfig",
    "FusionConfig",
    "RankerConfig",
    "TrainConfig",
    "describe",
    "parse_overrides",
    "presets",
    "resolve",
    "validate",
]
