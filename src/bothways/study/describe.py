"""The plan in words, printed before anything runs."""

from __future__ import annotations

import textwrap
from pathlib import Path

from bothways.study.contenders import CONTROLS, contender
from bothways.study.plan import MATCHED, UNMATCHED, Plan
from bothways.study.progress import clock
from bothways.study.run import expected_seconds


def plan_lines(plan: Plan, folder: Path) -> list[str]:
    """What will run, on what, for how long, what is matched and what cannot be."""
    study, jobs = plan.study, plan.jobs()
    lines = [f"Study in {folder}: {len(jobs)} runs, {study.workers} at a time with {study.threads} "
             f"{'thread' if study.threads == 1 else 'threads'} each on {study.device}; about "
             f"{clock(expected_seconds(plan))} in all, measuring and report included", ""]
    for source in study.sources:
        size = plan.chosen[source.key]
        seeds = f"{source.seeds} seed{'s' if source.seeds > 1 else ''}"
        lines.append(f"  {source.title}: {source.budget} a run, {seeds}; {size.width} wide, {size.layers} layers, "
                     + (f"vocabulary {size.vocabulary:,}, " if source.kind == "text" else "")
                     + f"windows of {size.window}, {size.batch_tokens:,} tokens a step, {size.optimizer}")
        if source.seeds == 1:
            lines.append("    one seed: curves and numbers, no verdict")
    lines += ["", "  contenders"]
    lines += [f"    {who.title:26} {who.plain}" for who in map(contender, study.contenders)]
    lines += ["  controls", f"    {', '.join(CONTROLS[key].title for key in study.controls)}"]
    for heading, entries in (("  matched", MATCHED), ("  not matched", UNMATCHED)):
        lines += [heading, *(wrapped for entry in entries for wrapped in textwrap.wrap(
            entry, 108, initial_indent="    - ", subsequent_indent="      "))]
    return [*lines, ""]
