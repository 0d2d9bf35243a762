"""The tables of a settings file, and the model that checks each table.

A model is imported only when its table is needed, and no model imports torch or a web framework, so
a finished stage returns at once.
"""

from pipelines.methods import METHODS

TABLES: dict[str, str] = {
    "run": "pipelines.settings.run:RunConfig",
    "store": "data.store.database:StoreConfig",
    "sampler": "finetune.settings.sampler:Sampler",
    "images": "pipelines.run.image_plan:ImagesConfig",
    "tasks": "labeling_app.campaign.tasks:TasksConfig",
    "label": "labeling_app.settings:LabelConfig",
    "simulate": "labeling_app.campaign.simulated:SimulatedRaterConfig",
    "reward": "reward.settings:RewardConfig",
    "finetune": "pipelines.settings.finetune:FinetuneConfig",
    **{name: method.settings for name, method in METHODS.items()},
    "rounds": "pipelines.settings.stages:RoundsConfig",
    "evaluate": "pipelines.settings.stages:EvaluateConfig",
    "compare": "labeling_app.campaign.comparisons:CompareConfig",
    "play": "pipelines.play.settings:PlayConfig",
    "session": "pipelines.session.settings:SessionConfig",
    "session_policy": "reward.sessions.settings:SessionPolicyConfig",
}
"""Each table's model as `module:class`, in the order in which settings are written."""
