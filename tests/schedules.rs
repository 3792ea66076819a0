//! Many sequences at once: each gets the same results, bit for bit, as it gets alone. It does not matter
//! which others arrive, are cancelled or are preempted, how its prompt is cut into chunks, and how much of it
//! the cache holds.

use crate::support::{Fixture, On};
use safetensors::{Dtype, tensor::TensorView};
use std::collections::HashMap;
use wgpt::{
    backend::{Backend, wait},
    buffers::Sizes,
    cache_blocks::Move,
    engine::{KeptBlocks, plans},
    kv_format::KvFormat,
    model::Model,
    sampling::{Dry, Logprobs, Mirostat, Penalties, Sampling, Xtc},
    scheduler::{Batch, Goal, Happened, NewSequence, Outcome, Scheduler, SequenceId},
    weights::Random,
    workload::Phase,
};

/// The sizes of a step and of the cache. The context is the model's.
#[derive(Clone, Copy)]
struct Room {
    chunk: u32,
    group: u32,
    sequences: u32,
    /// The number of cache blocks beyond those of one whole context.
    spare: u32,
    /// The number of blocks whose contents the host's memory keeps.
    kept: usize,
    guesses: u32,
    kv_format: KvFormat,
}

const ALONE: Room =
    Room { chunk: 128, group: 8, sequences: 1, spare: 0, kept: 0, guesses: 0, kv_format: KvFormat::F32 };

/// A model on a device, and its steps in flight.
struct Machine {
    backend: Box<dyn Backend>,
    scheduler: Scheduler,
    kept_blocks: KeptBlocks,
    /// How many blocks came back from the host's memory.
    returned: usize,
    in_flight: std::collections::VecDeque<Batch>,
}

impl Machine {
    fn new(model: &Model, on: On, context: u32, room: Room) -> Option<Self> {
        let device = on.open()?.with_kv_format(room.kv_format);
        let Room { chunk, group, sequences, spare, kept, guesses, .. } = room;
        let sizes = Sizes {
            rows: [chunk, group],
            outputs: chunk.max(group),
            sequences,
            guesses,
            adapters: 0,
            context,
            blocks: context.div_ceil(32) + spare,
        };
        let plans = plans(model, &device.capabilities(), sizes).expect("plans");
        let backend = device.prepare(plans, &|_| ()).expect("a device made ready");
        let mut scheduler = Scheduler::new(sizes, false);
        scheduler.keep_blocks(kept);
        let (kept_blocks, in_flight) = Default::default();
        Some(Self { backend, scheduler, kept_blocks, returned: 0, in_flight })
    }

    /// Submits a step if there is one and the device takes it.
    fn submit(&mut self) -> bool {
        let busy = self.in_flight.len() >= self.backend.max_in_flight();
        if busy || self.in_flight.back().is_some_and(|batch| !batch.reads.allow_more()) {
            return false;
        }
        let batch = self.scheduler.schedule();
        let moves = self.scheduler.moves();
        self.returned += moves.iter().filter(|made| matches!(made, Move::Return { .. })).count();
        wait(self.kept_blocks.carry_out(moves, &mut *self.backend)).expect("the device");
        let Some(batch) = batch else { return false };
        let sizes = self.backend.plans().sizes;
        assert!(batch.step.rows.len() <= sizes.rows[batch.phase as usize] as usize);
        assert!(batch.step.outputs.len() <= sizes.outputs as usize);
        self.backend.submit(batch.phase, &batch.step).expect("the device");
        self.in_flight.push_back(batch);
        true
    }

    /// Waits for the oldest step. Returns false if there is none.
    fn wait(&mut self, mut told: impl FnMut(SequenceId, Happened)) -> bool {
        let Some(batch) = self.in_flight.pop_front() else { return false };
        let mut outcome = Outcome { picked: wait(self.backend.picked()).expect("ids"), ..Outcome::default() };
        let outputs = batch.step.outputs.len();
        if batch.reads.scores {
            outcome.scores = wait(self.backend.read(self.backend.plans().scores(), outputs)).expect("scores");
        }
        if batch.reads.logits {
            outcome.logits = wait(self.backend.read(self.backend.plans().logits(), outputs)).expect("logits");
        }
        if batch.reads.hidden {
            let rows = batch.step.rows.len();
            outcome.hidden = wait(self.backend.read(self.backend.plans().hidden(), rows)).expect("states");
        }
        self.scheduler.commit(&batch, &outcome).into_iter().for_each(|e| told(e.sequence, e.happened));
        true
    }
}

/// The results of a sequence: its tokens, and the bits of its scores and logits.
#[derive(Clone, Debug, Default, PartialEq)]
struct Came {
    tokens: Vec<u32>,
    bits: Vec<u32>,
    finished: bool,
    preempted: u32,
}

impl Came {
    fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Token(id) => self.tokens.push(id),
            Happened::Scores(values) | Happened::Logits(values) | Happened::Hidden(values) => {
                self.bits.extend(values.iter().map(|value| value.to_bits()));
            }
            Happened::Logprobs(Logprobs { chosen, top }) => {
                self.bits.push(chosen.to_bits());
                self.bits.extend(top.into_iter().flat_map(|(id, logprob)| [id, logprob.to_bits()]));
            }
            Happened::Finished(_) => self.finished = true,
            Happened::NotNumbers => panic!("the fixtures' logits are numbers"),
            Happened::Preempted => self.preempted += 1,
            Happened::Started { .. } | Happened::Read { .. } => (),
        }
    }
}

struct Dice(Random);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.0.word() >> 33) as usize % n
    }
    fn in_(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Sampling settings of every kind, some of which depend on the tokens before.
fn sampling(dice: &mut Dice) -> Sampling {
    let plain = Sampling { temperature: 0.9, seed: dice.below(1000) as u64, ..Sampling::GREEDY };
    match dice.below(8) {
        0..3 => Sampling::GREEDY,
        3 => Sampling { top_k: 20, top_p: 0.9, ..plain },
        4 => Sampling {
            penalties: Penalties { repetition: 1.3, frequency: 0.1, presence: 0.1, last: 20 },
            dry: Dry { multiplier: 0.8, ..Dry::NONE },
            ..plain
        },
        5 => Sampling { mirostat: Some(Mirostat { target: 3.0, rate: 0.2 }), ..plain },
        6 => Sampling { typical_p: 0.7, min_p: 0.01, biases: vec![(3, 2.0)], ..plain },
        _ => Sampling { xtc: Xtc { probability: 0.5, threshold: 0.05 }, temperature: 2.0, ..plain },
    }
}

/// A random sequence. Many of them share a beginning with others, or begin with an earlier text and its
/// answer.
fn sequence(dice: &mut Dice, vocab: u32, context: usize, texts: &[Vec<u32>]) -> NewSequence {
    let stem = dice.below(3) as u32;
    let shared = [0, 0, 33, 64, 70][dice.below(5)].min(context - 8);
    let room = context - shared - 4;
    let most = if dice.in_(4) { room } else { room.min(9) };
    let own = 1 + dice.below(most);
    let mut tokens: Vec<u32> = (0..shared as u32).map(|i| (i * 7 + stem * 13 + 1) % vocab).collect();
    if dice.in_(3) && !texts.is_empty() {
        tokens.clone_from(&texts[dice.below(texts.len())]);
    }
    let own = own.min(context - 4 - tokens.len());
    tokens.extend((0..own).map(|_| dice.below(vocab as usize) as u32));
    let goal = match dice.below(10) {
        0 => Goal::Predict { from: dice.below(tokens.len()) },
        1 => {
            let from = dice.below(tokens.len());
            let targets = (from..tokens.len()).map(|_| dice.below(vocab as usize) as u32).collect();
            Goal::Score { from, targets }
        }
        2 => Goal::Hidden { from: dice.below(tokens.len()) },
        _ => Goal::Generate {
            max_tokens: [8, 8, 8, 40][dice.below(4)] - dice.below(8),
            sampling: sampling(dice),
            ends: vec![dice.below(vocab as usize) as u32],
            logprobs: (dice.below(4) == 0).then(|| dice.below(4)),
            keep: dice.in_(3).then(|| dice.below(40)),
        },
    };
    NewSequence { tokens, images: Vec::new(), adapters: Vec::new(), goal }
}

/// Checks a number of random schedules of a model on a device. Returns how many tokens were guessed; none
/// where there is no such device.
fn check(model: &Model, on: On, kv_format: KvFormat, schedules: usize, seed: u64) -> Option<u32> {
    let (name, context, vocab) =
        (&model.name, model.architecture.max_positions, model.architecture.vocab_size);
    let mut alone = Machine::new(model, on, context, Room { kv_format, ..ALONE })?;
    let rooms = [
        Room { chunk: 128, group: 8, sequences: 32, spare: 40, kept: 0, guesses: 7, ..ALONE },
        Room { chunk: 24, group: 8, sequences: 7, spare: 2, kept: 5, guesses: 4, ..ALONE },
        Room { chunk: 7, group: 3, sequences: 32, spare: 0, kept: 500, guesses: 2, ..ALONE },
    ];
    let rooms = rooms.map(|room| Room { kv_format, ..room });
    let mut machines = rooms.map(|room| Machine::new(model, on, context, room).expect("it opened before"));
    let mut dice = Dice(Random(seed));
    let (mut preempted, mut cached, mut guessed, mut texts) = (0, 0, 0, Vec::new());
    for schedule in 0..schedules {
        let machine = &mut machines[schedule % rooms.len()];
        let arrivals = [1, 2, 4, 6, 40][dice.below(5)];
        let mut wanted = HashMap::new();
        let mut came: HashMap<SequenceId, Came> = HashMap::new();
        let mut left = arrivals;
        loop {
            if left > 0 && !dice.in_(3) {
                let new = sequence(&mut dice, vocab, context as usize, &texts);
                wanted.insert(machine.scheduler.add(new.clone()), new);
                left -= 1;
            }
            if dice.in_(12)
                && let Some(id) = wanted.keys().min().copied()
            {
                machine.scheduler.cancel(id);
                wanted.remove(&id);
            }
            if dice.in_(6)
                && let Some(id) = wanted.keys().max().copied()
            {
                machine.scheduler.preempt(id);
            }
            let mut progress = machine.submit();
            if !progress || dice.in_(2) {
                let mut last = None;
                progress |= machine.wait(|id, happened| {
                    if let Happened::Token(_) = happened {
                        // A sequence that gets several tokens by one step has guessed them.
                        guessed += u32::from(last.replace(id) == Some(id));
                    }
                    if let Happened::Read { cached: found, .. } = happened {
                        cached += found;
                    }
                    came.entry(id).or_default().take(happened);
                });
            }
            if !progress {
                // With nothing in flight, something runs as long as anything is left to do.
                assert!(machine.scheduler.is_idle(), "{name} on {on:?}, schedule {schedule}: nothing runs");
                if left == 0 {
                    break;
                }
            }
        }
        for (id, new) in wanted {
            let together = came.remove(&id).unwrap_or_default();
            assert!(together.finished, "{name} on {on:?}, schedule {schedule}: {new:?}");
            preempted += together.preempted;
            alone.scheduler.clear();
            let mut by_itself = Came::default();
            alone.scheduler.add(new.clone());
            while alone.submit() || alone.wait(|_, happened| by_itself.take(happened)) {}
            let text = [&new.tokens[..], &by_itself.tokens].concat();
            if by_itself.tokens.len() > 20 && text.len() + 8 < context as usize {
                texts.push(text);
            }
            by_itself.preempted = together.preempted;
            assert_eq!(together, by_itself, "{name} on {on:?}, schedule {schedule}: {new:?}");
        }
    }
    let returned: usize = machines.iter().map(|machine| machine.returned).sum();
    println!(
        "{name} on {on:?}, a cache of {kv_format:?}: {schedules} schedules, {preempted} preempted, \
         {cached} tokens \
         found in the cache, \
         {returned} blocks back from the host's memory, {guessed} guessed"
    );
    let is_meant = preempted > 0 && cached > 0 && (returned > 0 || context < 300);
    assert!(is_meant, "{name} on {on:?}: the schedules are not what they are meant to be");
    Some(guessed)
}

/// A fixture. With rotary positions, its context is long enough for several blocks and splits.
fn model(name: &str) -> Model {
    let mut model = Fixture::open(name).model;
    if model.architecture.embedding.positions.is_none() {
        model.architecture.max_positions = 300;
    }
    model
}

/// A model of random weights whose heads are wide enough for every format of the cache.
fn wide() -> Model {
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 32, "vocab_size": 50, "max_position_embeddings": 300, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
    });
    let mut shapes = vec![("embed_tokens".to_owned(), [50, 64]), ("norm".to_owned(), [1, 64])];
    for layer in 0..2 {
        let of_layer = [
            ("self_attn.q_proj", [64, 64]),
            ("self_attn.k_proj", [32, 64]),
            ("self_attn.v_proj", [32, 64]),
            ("self_attn.o_proj", [64, 64]),
            ("mlp.gate_proj", [48, 64]),
            ("mlp.up_proj", [48, 64]),
            ("mlp.down_proj", [64, 48]),
            ("input_layernorm", [1, 64]),
            ("post_attention_layernorm", [1, 64]),
        ];
        shapes.extend(of_layer.map(|(name, shape)| (format!("layers.{layer}.{name}"), shape)));
    }
    let mut dice = Dice(Random(7));
    let mut number = || dice.below(2001) as f32 / 2000.0 - 0.5;
    let values: Vec<Vec<f32>> =
        shapes.iter().map(|(_, [rows, columns])| (0..rows * columns).map(|_| number()).collect()).collect();
    let tensors = shapes.iter().zip(&values).map(|((name, shape), values)| {
        let shape = if shape[0] == 1 { vec![shape[1]] } else { shape.to_vec() };
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values)).expect("a tensor");
        (format!("model.{name}.weight"), view)
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("a file");
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).expect("a file");
    Model::open_weights(folder.path()).expect("a model")
}

/// Caches in f16 and in quantised forms.
#[test]
fn in_every_format_of_the_cache_each_sequence_gets_what_it_gets_alone() {
    let model = wide();
    for (seed, format) in (1..).zip(KvFormat::ALL) {
        assert_eq!(format.of_heads(model.architecture.head_dim), format);
        check(&model, On::Cpu, format, 40, seed);
        check(&model, On::Gpu, format, 12, seed);
    }
}

/// Random schedules, a thousand together with those on the GPU: arrivals, cancellations, preemptions, shared
/// beginnings, chunks of three sizes, and up to 32 running sequences, each with its own sampling settings.
#[test]
fn on_the_cpu_each_sequence_gets_what_it_gets_alone() {
    let names = ["gpt1", "gpt2-f16", "gpt-neo", "llama-grouped", "mistral", "smollm3"];
    for (seed, name) in (1..).zip(names) {
        let guessed = check(&model(name), On::Cpu, KvFormat::F32, 130, seed);
        assert!(guessed > Some(0), "{name}: no guess came true");
    }
}

#[test]
fn on_the_gpu_each_sequence_gets_what_it_gets_alone() {
    let names = ["gpt2-f16", "gpt-neo", "llama-grouped", "qwen3"];
    let guessed = (1..).zip(names).map(|(seed, name)| check(&model(name), On::Gpu, KvFormat::F32, 55, seed));
    // Steps run ahead of the host there, and only what it knows lets guesses be looked up.
    let guessed: Option<u32> = guessed.sum();
    assert!(guessed.is_none_or(|guessed| guessed > 0), "no guess came true");
}

#[test]
fn a_shared_beginning_is_computed_once() {
    let model = model("llama-grouped");
    let room = Room { chunk: 16, group: 8, sequences: 4, spare: 20, kept: 0, ..ALONE };
    let mut machine = Machine::new(&model, On::Cpu, 128, room).expect("the CPU");
    let tokens: Vec<u32> = (0..100).map(|i| i % 50).collect();
    let goal = Goal::generate(Sampling::GREEDY, 2);
    let new = NewSequence { tokens, images: Vec::new(), adapters: Vec::new(), goal };
    // Two sequences at once, then one more after both have ended.
    for (count, most) in [(2, 104 + 32), (1, 4)] {
        for _ in 0..count {
            machine.scheduler.add(new.clone());
        }
        let mut computed = 0;
        while machine.submit() {
            let batch = machine.in_flight.back().expect("it was handed out");
            if batch.phase == Phase::Prefill {
                computed += batch.step.rows.len();
            }
            machine.wait(|_, _| ());
        }
        assert!(computed <= most, "{computed} tokens were computed, not at most {most}");
    }
}

/// Prompts that lost their room in the cache to others come back from the host's memory, as far as that has
/// room, and give what they gave.
#[test]
fn prompts_without_room_come_back_from_the_hosts_memory() {
    let model = model("llama-grouped");
    let goal = Goal::Generate {
        sampling: Sampling::GREEDY,
        max_tokens: 9,
        ends: Vec::new(),
        logprobs: Some(3),
        keep: None,
    };
    let prompt = |start: u32| NewSequence {
        tokens: (start..start + 100).map(|i| i % 50).collect(),
        images: Vec::new(),
        adapters: Vec::new(),
        goal: goal.clone(),
    };
    for on in [On::Cpu, On::Gpu] {
        for (kept, expected) in [(0, [96, 0, 0]), (2, [96, 64, 0]), (100, [96; 3])] {
            let room = Room { chunk: 64, group: 8, sequences: 1, spare: 0, kept, ..ALONE };
            let Some(mut machine) = Machine::new(&model, on, 128, room) else { continue };
            let mut ask = |start: u32| {
                let (mut came, mut found) = (Came::default(), 0);
                machine.scheduler.add(prompt(start));
                while machine.submit()
                    || machine.wait(|_, happened| {
                        if let Happened::Read { cached, .. } = happened {
                            found = cached;
                        }
                        came.take(happened);
                    })
                {}
                (came, found)
            };
            let first = [1, 2, 3].map(&mut ask);
            let again = [3, 2, 1].map(&mut ask);
            for ((came, found), (before, _)) in again.iter().zip(first.iter().rev()) {
                assert_eq!(came, before, "{on:?}, {kept} kept, {found} tokens found");
            }
            // The last one is still in the cache, whatever is kept.
            assert_eq!(again.map(|(_, found)| found), expected, "{on:?}, {kept} kept");
        }
    }
}
