"""Distill a teacher: match its distribution over its k most likely tokens, next to the loss of the method."""

from tunesmith import ModelSpec, Needs, Plugin, Settings, Term, hookimpl


class TeacherSettings(Settings):
    teacher_model: str
    """Folder or hub id of the teacher."""
    teacher_topk: int = 8
    """Number of tokens that are compared."""


plugin = Plugin(settings=TeacherSettings, needs=Needs(logps_at=("teacher_ids",)))


@hookimpl
def validate(run):
    run.load_model(ModelSpec("teacher", run.settings(TeacherSettings).teacher_model, key="teacher_model"))


@hookimpl
def prepare_step(run, batches):
    for batch in batches:
        out = run.models["teacher"](batch, Needs(topk=run.settings(TeacherSettings).teacher_topk))
        batch.columns |= {"teacher_ids": out.topk_ids, "teacher_logps": out.topk_logps}


@hookimpl(wrapper=True)
def compute_loss(out, batch):
    terms = yield
    teacher = batch.columns["teacher_logps"].log_softmax(-1)
    student = out.logps_at["teacher_ids"].log_softmax(-1)
    divergence = (teacher.exp() * (teacher - student)).sum(-1)
    return terms | {"distillation": Term((divergence * batch.weight).sum(), "tokens")}
