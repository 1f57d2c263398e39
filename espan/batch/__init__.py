"""Upscales many files with one or more upscalers. One bad file never stops the others."""

from espan.batch.journal import Journal, settings_of
from espan.batch.planning import FileJob, Outcome, plan, shard
from espan.batch.work import run, run_job

__all__ = ["FileJob", "Journal", "Outcome", "plan", "run", "run_job", "settings_of", "shard"]
