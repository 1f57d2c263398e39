"""Many files through one upscaler or several. One bad file never stops the others."""

from espan.batch.journal import Journal, settings_of
from espan.batch.planning import FileJob, Outcome, plan, shard
from espan.batch.work import do, run

__all__ = ["FileJob", "Journal", "Outcome", "do", "plan", "run", "settings_of", "shard"]
