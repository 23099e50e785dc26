# The names that `tunesmith` exports, with their modules. __init__.py reads this list and imports a name on first use.

from tunesmith_engine.batch.batch import Batch as Batch, collate as collate
from tunesmith_engine.batch.examples import Example as Example, Segment as Segment, segment as segment
from tunesmith_engine.batch.media import Media as Media
from tunesmith_engine.batch.pairs import (
    chosen_tokens as chosen_tokens,
    count_chosen_tokens as count_chosen_tokens,
    pair_metrics as pair_metrics,
    split_pairs as split_pairs,
)
from tunesmith_engine.batch.stretch import Stretch as Stretch
from tunesmith_engine.batch.terms import LogRecord as LogRecord, StepRecord as StepRecord, Table as Table, Term as Term
from tunesmith_engine.batch.tree_mask import TreeMask as TreeMask
from tunesmith_engine.checkpoint.card import write_card as write_card
from tunesmith_engine.data.prompts import (
    prompt_tokens as prompt_tokens,
    render_prompt as render_prompt,
    template_variables as template_variables,
    turn_ends as turn_ends,
)
from tunesmith_engine.data.shards import ROWS_PER_BLOCK as ROWS_PER_BLOCK
from tunesmith_engine.data.tokenize import Piece as Piece, tokenized as tokenized
from tunesmith_engine.model.build import build_policy as build_policy
from tunesmith_engine.model.data_parallelism import (
    Replicated as Replicated,
    Sharded as Sharded,
    start_world as start_world,
)
from tunesmith_engine.model.decoder import Decoder as Decoder, RecomputingDecoder as RecomputingDecoder
from tunesmith_engine.model.generation import (
    Completion as Completion,
    Generator as Generator,
    Request as Request,
    Sampling as Sampling,
)
from tunesmith_engine.model.language_model import (
    AttentionShape as AttentionShape,
    HeadShard as HeadShard,
    HeadWeights as HeadWeights,
    Hidden as Hidden,
    LanguageModel as LanguageModel,
    attention_backends as attention_backends,
)
from tunesmith_engine.model.moving_reference import MovingReference as MovingReference
from tunesmith_engine.model.optimizers import state_bytes as state_bytes
from tunesmith_engine.model.parallelism import Parallelism as Parallelism, full_shape as full_shape
from tunesmith_engine.model.parameter_groups import parameter_groups as parameter_groups
from tunesmith_engine.model.policy import Output as Output, Policy as Policy
from tunesmith_engine.model.scoring import (
    ChunkedScorer as ChunkedScorer,
    OutputHead as OutputHead,
    Scorer as Scorer,
    ScoreRequest as ScoreRequest,
)
from tunesmith_engine.model.vocabulary import sum_gradients as sum_gradients
from tunesmith_engine.rounds.groups import Group as Group, Prompt as Prompt
from tunesmith_engine.rounds.turns import (
    append_tokens as append_tokens,
    append_turn as append_turn,
    continue_request as continue_request,
    roll_out_turns as roll_out_turns,
)
from tunesmith_engine.runtime.world import World as World
from tunesmith_engine.training.generating import generate_texts as generate_texts
from tunesmith_engine.training.opened import OpenModel as OpenModel
from tunesmith_engine.training.result import History as History, Result as Result
from tunesmith.api import (
    evaluate as evaluate,
    open_model as open_model,
    plan as plan,
    prepare as prepare,
    start as start,
    train as train,
    verify as verify,
)
from tunesmith.config.config import Config as Config, DatasetSpec as DatasetSpec
from tunesmith.config.load import load_config as load_config
from tunesmith.errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    EnvironmentProblem as EnvironmentProblem,
    ModelError as ModelError,
    NumericalError as NumericalError,
    PluginError as PluginError,
    Problem as Problem,
    SafetyError as SafetyError,
    TunesmithError as TunesmithError,
)
from tunesmith.files.row import Row as Row, Source as Source
from tunesmith.finding import Finding as Finding
from tunesmith.plugins.dispatch import spec as spec
from tunesmith.plugins.models import Adapter as Adapter, ModelSpec as ModelSpec
from tunesmith.online import (
    OnlineSettings as OnlineSettings,
    RolloutSettings as RolloutSettings,
    check_online as check_online,
    rollout_of as rollout_of,
)
from tunesmith.plugins.plugin import (
    Head as Head,
    Method as Method,
    Needs as Needs,
    Plugin as Plugin,
    Settings as Settings,
    hookimpl as hookimpl,
)
from tunesmith.plugins.rollout import Reward as Reward, Rollout as Rollout
from tunesmith.plugins.values import PathText as PathText
from tunesmith.run import Run as Run
from tunesmith.saved import SavedModel as SavedModel, find_saved as find_saved

__version__: str
