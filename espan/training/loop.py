"""The training run: its stages in sequence, each a loop over steps."""

import time
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from espan.checkpoints.averaging import check_alike, mean
from espan.checkpoints.untrusted import one_line
from espan.checkpoints.weights import load, save
from espan.errors import EspanError, InputError, OutputError
from espan.evaluation.benchmark import benchmark_sets
from espan.networks.espan import ESPAN
from espan.networks.folding import fold
from espan.system.atomic import remove_leftovers
from espan.training.balance import hold_share, statistics_of
from espan.training.budget import check_memory
from espan.training.checkpoints import Checkpoints
from espan.training.config import BEST, SYNTHETIC, TrainConfig
from espan.training.data import Patches, closing
from espan.training.distill import SelfDistilled
from espan.training.fabric import launch
from espan.training.image_pairs import ImagePairs
from espan.training.losses import Terms, distance, distillation, loss_of
from espan.training.optim import lr_multiplier, moving_average, optimizers_of, overflow_together
from espan.training.outputs import LEVELS, add_teacher_outputs
from espan.training.record import Record
from espan.training.start import initialise
from espan.training.stopping import StopSignals
from espan.training.synthetic import make_images
from espan.training.teachers import Teachers
from espan.training.transfer import transfer_weights

FINAL = "final.safetensors"


class TrainingError(EspanError):
    """Raised if a run cannot continue."""


def train(config: TrainConfig) -> Path:
    """Starts or resumes the run in `config.out`; returns its weights, final.safetensors (folded).

    With `config.average`, these are the mean of the trained weights and the given files.

    The folder gets config.json, log.jsonl, TensorBoard events, checkpoints, images of the last
    validation, the final weights of each stage, and best.safetensors, the weights of the current
    stage with the best validation score; all folded. On SIGINT or SIGTERM during a step, the run
    saves after the step and raises KeyboardInterrupt; a resumed run gives the same bits as an
    uninterrupted one. A second signal, or one before the first step, ends the process immediately.
    """
    run = Run(config)
    state = run.checkpoints.newest()
    net: nn.Module | None = _initial(config)
    with StopSignals() as stopping, Record(run.out, config, run.first) as record, run.open:
        for number in range(state["stage"] if state else 0, config.number_of_stages):
            net, state = run.stage(number, net, state, record, stopping), None
            if run.first:
                save(fold(teacher_of(net)), run.out / f"{config.stage(number).name}.safetensors")
    path = run.out / FINAL
    if run.first:
        save(mean([(str(path), fold(teacher_of(net))), *run.others]), path)
    return path


class Run:
    """The state that the stages of a run share."""

    def __init__(self, config: TrainConfig):
        self.config, self.out = config, Path(config.out)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise OutputError(f"{self.out}: cannot write to this folder: {reason}") from error
        self.fabric, self.precision = launch(config)
        stages = [config.stage(number) for number in range(config.number_of_stages)]
        world = self.fabric.world_size
        for stage in stages:
            check_memory(stage, self.fabric.device, world, min(world, config.devices))
        self.open = ExitStack()  # closed at the end of the run, also on errors
        self.first = self.fabric.is_global_zero
        if self.first:
            remove_leftovers(self.out)
        self.checkpoints = Checkpoints(self.out, config)
        self.data = Path(config.data)
        if config.data == SYNTHETIC:
            self.data = self.out / SYNTHETIC
            if self.first:
                make_images(self.data)
        self.fabric.barrier()
        # Loads the data of all stages first: errors must not show up after days.
        by_scale = {scale: ImagePairs(self.data, scale) for scale in {s.scale for s in stages}}
        self.teachers = [Teachers(s) if s.teacher else None for s in stages]
        self.images = []
        for s, teachers in zip(stages, self.teachers, strict=True):
            images = add_teacher_outputs(by_scale[s.scale], teachers, self.fabric)
            self.images.append(images.at_least(s.patch * s.scale))
        self.others = [(name, load(name)) for name in config.average]
        end = stages[-1]
        own = ESPAN(end.channels, end.blocks, end.last_convs, end.scale)
        check_alike([(str(self.out / FINAL), own), *self.others])
        if config.validate is not None:
            for scale in by_scale:
                benchmark_sets(Path(config.validate), scale)

    def stage(
        self,
        number: int,
        before: nn.Module | None,
        state: dict | None,
        record: Record,
        stopping: StopSignals,
    ) -> nn.Module:
        """Trains from the previous stage `before` or from `state`; returns the averaged network."""
        config, fabric = self.config.stage(number), self.fabric
        patches = Patches(self.images[number], config, number)
        model = network_for_stage(config, before, patches)
        average = AveragedModel(model, multi_avg_fn=moving_average(config.ema)).to(fabric.device)
        optimizers = optimizers_of(model, teacher_of(model), config)
        peaks = [group["lr"] for each in optimizers for group in each.param_groups]
        if state is None and self.first:
            self.config.save(self.out / "config.json")
            (self.out / BEST).unlink(missing_ok=True)  # each stage has its own
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # of torch
        trained, *optimizers = fabric.setup(model, *optimizers)
        teachers = self.teachers[number]
        if teachers:
            teachers.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # of torch
            teachers.watch(model)
        # After the moves to the device: loading copies into tensors where they are.
        step = self._restore(state, model, average, optimizers) if state else 0
        overall = sum(self.config.stage(i).steps for i in range(number))
        ranks = fabric.global_rank, fabric.world_size
        loader = patches.loader(step, config.steps, *ranks, fabric.device.type == "cuda")

        record.begin(config, step)
        asked = time.monotonic()
        for lr, hr, *kept in self.open.enter_context(closing(loader)):
            record.waited += time.monotonic() - asked
            stopping.watch()
            groups = (group for each in optimizers for group in each.param_groups)
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = peak * lr_multiplier(step, config)
            lr, hr = (each.to(fabric.device, non_blocking=True).float() / 255 for each in (lr, hr))
            lr = lr.to(memory_format=torch.channels_last)
            kept = [each.to(fabric.device, non_blocking=True).float() / LEVELS for each in kept]
            batch = (lr, hr, kept)
            terms = self._terms(trained(lr), batch, config, teachers)
            loss = sum(terms.values(), hr.new_zeros(()))
            if self._any(not loss.isfinite()):
                names = ", ".join(patches.names(step)[:3])
                where = f"stage {config.name}, step {step} (patches of {names}, ...)"
                raise TrainingError(f"{where}: the loss is {loss.item()}")
            due = (step + 1) % config.every == 0 or step + 1 == config.steps
            for optimizer in optimizers:
                optimizer.zero_grad()
            fabric.backward(loss)
            # After backward has freed the graph of the loss, since this computes the loss again.
            shares = self._shares(model, batch, config, teachers) if due else {}
            if config.precision == "fp16":
                overflow_together(optimizers)
            # Separately: with fp16, the first step may change the loss scale. Muon, the second
            # optimizer, does not depend on it, because it normalises gradients.
            for optimizer in optimizers:
                fabric.clip_gradients(
                    trained, optimizer, max_norm=config.clip, error_if_nonfinite=False
                )
                optimizer.step()
            step += 1
            average.update_parameters(model)
            record.bar.update()

            stop = self._any(stopping.requested)
            if self.first and (due or stop):
                self.checkpoints.write(number, step, self._state(model, average, optimizers))
            if due:
                self._note(record, average, terms, shares, step, overall + step)
            if stop:
                raise KeyboardInterrupt
            asked = time.monotonic()
        record.end()
        return average.module

    def _terms(self, sr, batch, config, teachers) -> Terms:
        """The weighted terms of the loss of a batch, including those of teachers."""
        lr, hr, kept = batch
        terms = terms_of(sr, hr, config)
        if teachers:
            terms |= teachers.terms(lr, sr, kept, self.fabric.autocast)
        return hold_share(terms, config.frequency_share, self.fabric.all_reduce)

    def _shares(self, model, batch, config, teachers) -> dict[str, float]:
        """`statistics_of` of a batch. Bypasses Fabric, which allows one backward per forward."""
        with self.fabric.autocast():
            sr = model(batch[0])
        terms = self._terms(sr, batch, config, teachers)
        l1 = distance(sr, batch[1])
        return statistics_of(terms, l1, model.parameters(), self.fabric.all_reduce)

    def _note(self, record, average, terms: Terms, shares: dict, step: int, overall: int) -> None:
        """Validates, writes a row of the log, and saves the weights if they are the best so far."""
        means = {name: self.fabric.all_reduce(term.detach()).item() for name, term in terms.items()}
        if not self.first:
            return
        net = fold(teacher_of(average.module))
        scores = record.validate(net, overall, str(self.fabric.device))
        record.write(step, overall, means, shares, scores)
        if scores and (score := fmean(scores.values())) > self._best():
            save(net, self.out / BEST, validation=str(score))

    def _best(self) -> float:
        """The validation score stored in the file of the best weights."""
        path = self.out / BEST
        if not path.is_file():
            return float("-inf")
        with safe_open(path, framework="pt") as file:
            return float(file.metadata()["validation"])

    def _state(self, model, average, optimizers) -> dict:
        return {
            "net": model.state_dict(),
            "average": average.state_dict(),
            "optimizers": [each.state_dict() for each in optimizers],
            "precision": self.precision.state_dict(),
        }

    def _restore(self, state: dict, model, average, optimizers) -> int:
        try:
            model.load_state_dict(state["net"])
            average.load_state_dict(state["average"])
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.precision.load_state_dict(state["precision"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            where = f"{state['path']}: does not fit this run"
            raise InputError(f"{where}: {one_line(error)}; remove it to continue") from error
        return state["step"]

    def _any(self, here: bool) -> bool:
        """Whether `here` is true in any process, so that all stop at the same step."""
        if self.fabric.world_size == 1:
            return here
        return bool(self.fabric.all_reduce(torch.tensor(float(here)), reduce_op="sum").item())


def terms_of(sr: Tensor | tuple[Tensor, Tensor], hr: Tensor, config: TrainConfig) -> Terms:
    """The terms of the loss; with a student, also its terms and its distance from the teacher."""
    if isinstance(sr, Tensor):
        return loss_of(sr.float(), hr, config)
    teacher, student = (each.float() for each in sr)
    terms = loss_of(teacher, hr, config)
    terms |= {f"student_{name}": term for name, term in loss_of(student, hr, config).items()}
    if config.distill:
        terms["distill"] = config.distill * distillation(student, teacher, hr, config.margin)
    return terms


def network_for_stage(config: TrainConfig, before: nn.Module | None, patches: Patches) -> nn.Module:
    """The network of a stage: initialised, then with the weights of the previous network.

    If the stage trains the previous student alone, takes its weights, otherwise the teacher's.
    """
    torch.manual_seed(config.seed)
    rep = config.rep
    net = ESPAN(config.channels, config.blocks, config.last_convs, config.scale, rep)
    # On a batch outside the steps of the stage.
    initialise(net, patches.batch(config.steps)[0].float() / 255)
    student = before.student if isinstance(before, SelfDistilled) else None
    if before is not None:
        source = student if student and student.config == net.config else teacher_of(before)
        transfer_weights(source, net)
    if config.student is None:
        return net
    model = SelfDistilled(net, config.student)
    transfer_weights(student or net, model.student)
    model.share()
    return model


def teacher_of(model: nn.Module | None) -> ESPAN:
    """The network without its student."""
    net = model.teacher if isinstance(model, SelfDistilled) else model
    assert isinstance(net, ESPAN)  # the only class that is trained
    return net


def _initial(config: TrainConfig) -> ESPAN | None:
    if config.init is None:
        return None
    net = load(config.init)
    if not isinstance(net, ESPAN):
        raise InputError(f"{config.init}: expected an ESPAN, got {type(net).__name__}")
    return net
