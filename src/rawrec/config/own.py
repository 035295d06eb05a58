"""What a run uses that is not ours, and what is told where that is not there any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rawrec import plugins
from rawrec.config.content import JOINT
from rawrec.config.metrics import METRICS, followed, metric_entry
from rawrec.config.models import MODELS, model_entry
from rawrec.config.parts import ENCODERS, FUSIONS, encoder_entry, fusion_entry
from rawrec.config.run import Config

TABLES: dict[str, Mapping[str, plugins.Entry]] = {
    "models": MODELS,
    "encoders": ENCODERS,
    "fusions": FUSIONS,
    "metrics": METRICS,
}


FIND: dict[str, Callable[[str], plugins.Entry | None]] = {
    "models": model_entry,
    "encoders": encoder_entry,
    "fusions": fusion_entry,
    "metrics": metric_entry,
}


class Used(NamedTuple):
    """Something registered that a run uses: of which registry, and the package that brought it.

    package, version: None where it was registered by a module that belongs to no installed package.
    """

    registry: str
    name: str
    module: str
    package: str | None
    version: str | None


def own_parts(cfg: Config) -> list[Used]:
    """The registered things that a config names."""
    names = [
        ("models", cfg.model.name),
        ("fusions", cfg.content.fusion.kind),
        *(
            ("encoders", field.encoder.removeprefix(JOINT))
            for field in cfg.content.fields.values()
            if field.use and field.encoder
        ),
        *(("metrics", name) for name in (*cfg.eval.metrics, followed(cfg.train.metric).name)),
    ]
    found = []
    for registry, name in dict.fromkeys(names):
        entry = FIND[registry](name)
        if entry is not None and not entry.ours:
            package = plugins.package_of(entry.module)
            found.append(Used(registry, name, entry.module, *(package or (None, None))))
    return found


def lacking(used: Any) -> str | None:
    """Why what a run folder says that it uses cannot be had here; None where it can. Nothing is imported for it."""
    try:
        registry, name, module, package, version = (used[key] for key in Used._fields)
        table, what = TABLES[registry], plugins.GROUPS[registry]
        there = str(name) in plugins.names(registry, dict(table))
    except (KeyError, TypeError):
        return f"run.json is damaged: {used} says nothing of what is registered"
    if not there:
        if package is None:
            return (
                f"the run uses the {what} {name!r}, which the module {module} registered, and that belongs to no "
                "installed package: import it first, or make a package of it (docs/adding-a-model.md)"
            )
        return (
            f"the run uses the {what} {name!r} of the package {package} {version}, which is not installed here: "
            f"pip install {package}=={version}"
        )
    entry = table.get(name)
    here = {entry.module} if entry is not None else {point.module for point in plugins.installed()[registry][name]}
    packages = {found.name if (found := plugins.package_of(one)) else None for one in here}
    if package is not None and package not in packages:
        others = ", ".join(str(other or "no package") for other in packages)
        return f"the run uses the {what} {name!r} of the package {package} {version}; here that name is of {others}"
    return None
