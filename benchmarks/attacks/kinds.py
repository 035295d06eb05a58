"""All kinds of tries, by name."""

from __future__ import annotations

from attacks import addresses, calls, flips, killed, signs, sources, strange, surroundings, threads, together
from attacks.engine import Kind

KINDS = {
    kind.name: kind
    for kind in (
        Kind("strange: runs", strange.runs, 1700),
        Kind("strange: datasets", strange.datasets, 1300),
        Kind("strange: links", strange.links, 300),
        Kind("strange: encoders", strange.encoders, 300),
        Kind("strange: sources", sources.imports, 500),
        Kind("damage: dataset", flips.data, 900),
        Kind("damage: run", flips.runs, 600),
        Kind("damage: checkpoint", flips.checkpoints, 300),
        Kind("damage: cache", flips.caches, 200),
        Kind("signs: texts", signs.texts, 600),
        Kind("addresses: policy", addresses.policy, 500),
        Kind("addresses: requests", addresses.asked, 600),
        Kind("addresses: imports", addresses.pages, 50),
        Kind("calls", calls.misuse, 1500),
        Kind("threads: answers", threads.answers, 60),
        Kind("threads: training", threads.trainings, 20),
        Kind("threads: forks", threads.forks, 60),
        Kind("kills: datasets", killed.data, 350, clean=True),
        Kind("kills: runs", killed.runs, 200, clean=True),
        Kind("kills: exports", killed.others, 120, clean=True),
        Kind("kills: sweeps", killed.sweeps, 20, clean=True),
        Kind("together: runs", together.trainings, 100, clean=True),
        Kind("together: datasets", together.datasets, 150, clean=True),
        Kind("together: exports", together.exports, 50, clean=True),
        Kind("signs: commands", signs.commands, 60, clean=True),
        Kind("full disk", surroundings.full, 250, clean=True),
        Kind("few handles", surroundings.handles, 150, clean=True),
        Kind("little memory", surroundings.memory, 50, clean=True),
        Kind("closed places", surroundings.places, 150, clean=True),
        Kind("odd environments", surroundings.odd, 200, clean=True),
    )
}
