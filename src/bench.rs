//! Measures tokens per second on a device, and the memory traffic.
//!
//! The tests are those of llama-bench: `pp512` is a prompt of 512 tokens, `tg128` generates 128 tokens one
//! after the other, and `@ d4096` means that 4096 positions are in the cache already. Each test runs once to
//! warm up, which is not counted.

use crate::{
    backend::{Device, Measure, wait},
    buffers::{BLOCK, Sizes},
    decoder::longest_context,
    engine::{GROUP, plans},
    error::{Error, Result},
    model::Model,
    step::{Row, SAMPLED, Step},
    workload::Phase,
};
use serde::Serialize;
use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// A test to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    pub kind: TestKind,
    /// Tokens of each sequence.
    pub tokens: u32,
    /// Positions of the cache before these tokens.
    pub depth: u32,
    pub sequences: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestKind {
    Prompt,
    Generate,
}

impl TestKind {
    fn phase(self) -> Phase {
        match self {
            Self::Prompt => Phase::Prefill,
            Self::Generate => Phase::Decode,
        }
    }
}

impl Test {
    /// The name of the test, as llama-bench writes it.
    pub fn name(&self) -> String {
        let kind = if self.kind == TestKind::Prompt { "pp" } else { "tg" };
        let depth = if self.depth > 0 { format!(" @ d{}", self.depth) } else { String::new() };
        let batch = if self.sequences > 1 { format!(" b{}", self.sequences) } else { String::new() };
        format!("{kind}{}{depth}{batch}", self.tokens)
    }
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    pub test: String,
    /// Tokens in a run, of all sequences together.
    pub tokens: u64,
    /// Tokens per second: the mean over the runs and the standard deviation.
    pub tps_mean: f64,
    pub tps_sd: f64,
    /// Dispatches in a step, which is one token of each sequence or one chunk of a prompt.
    pub dispatches: usize,
    /// How long the host takes to record the last step while the device is idle: the median of 100, in
    /// microseconds.
    pub encode_us: f64,
    /// How long the host takes to submit a step: the median of all steps, in microseconds.
    pub submit_us: f64,
    /// Memory traffic in GB/s: the weights, cache and activations that the passes read and write, each
    /// counted once per pass.
    pub gb_s: f64,
}

/// The time of all passes of a step that do the same, in all layers together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profiled {
    pub kernel: &'static str,
    /// The kernel's note in a listing of the plan.
    pub note: String,
    pub passes: usize,
    /// The time in a step, in microseconds: the mean over the runs.
    pub us: f64,
    /// The share of the step's time, from 0 to 1.
    pub share: f64,
    pub gb_s: f64,
    pub gflop_s: f64,
}

/// A model on a device, ready to be measured.
pub struct Bench {
    backend: Box<dyn Measure>,
    /// The number of dispatches in a step, by phase.
    dispatches: [usize; 2],
    pub load: Duration,
    pub compile: Duration,
    /// The time from the start of loading to the first token, after a prompt of one token.
    pub first_token: Duration,
}

impl Bench {
    /// Loads a model with room for each of the tests. `progress` is called with the bytes of each part of the
    /// weights that is loaded.
    pub fn load(model: &Model, device: Device, tests: &[Test], progress: &dyn Fn(u64)) -> Result<Self> {
        let can = device.capabilities();
        let most = |of: fn(&Test) -> u32| tests.iter().map(of).max().unwrap_or(1).max(1);
        let (context, sequences) = (most(|t| t.depth + t.tokens), most(|t| t.sequences));
        let longest = longest_context(&model.architecture, &can);
        if context > longest {
            return Err(Error::request(format!(
                "the tests reach {context} positions, but {} holds at most {longest}: lower -p, -n or -d",
                model.name
            )));
        }
        let blocks = context.div_ceil(BLOCK) * sequences;
        let sizes = Sizes {
            rows: [can.chunk, GROUP],
            outputs: GROUP,
            sequences,
            guesses: 0,
            adapters: 0,
            context,
            blocks,
        };
        let plans = plans(model, &can, sizes)?;
        let dispatches = Phase::ALL.map(|phase| plans.dispatches(phase, &can).all);
        let start = Instant::now();
        let mut backend = device.prepare(plans, progress)?;
        let (ready, compile) = (start.elapsed(), backend.compile_time());
        let step = Step {
            rows: vec![Row { token: 1, position: 0, sequence: 0 }],
            outputs: vec![0],
            tables: vec![vec![0]],
            ..Step::default()
        };
        backend.submit(Phase::Prefill, &step)?;
        wait(backend.picked())?;
        Ok(Self { backend, dispatches, load: ready - compile, compile, first_token: start.elapsed() })
    }

    /// Runs a test once. Returns the time and the memory traffic in bytes. `each` is called after each step.
    fn run_with(&mut self, test: &Test, mut each: impl FnMut(&dyn Measure)) -> Result<(Duration, u64)> {
        let steps = self.steps(test);
        // The values in the cache do not change the time as long as they are finite, such as the initial
        // zeros.
        let start = Instant::now();
        let (mut bytes, mut in_flight) = (0, 0);
        for (phase, step) in &steps {
            bytes += self.backend.plans().bytes(*phase, &step.load());
            // As in a generation, the device runs a few steps ahead of the host.
            if in_flight == self.backend.max_in_flight() {
                wait(self.backend.picked())?;
                in_flight -= 1;
            }
            self.backend.submit(*phase, step)?;
            in_flight += 1;
            each(&*self.backend);
        }
        for _ in 0..in_flight {
            wait(self.backend.picked())?;
        }
        Ok((start.elapsed(), bytes))
    }

    /// Runs a test once and returns the time.
    pub fn run(&mut self, test: &Test) -> Result<Duration> {
        Ok(self.run_with(test, |_| ())?.0)
    }

    /// How long the host takes to record the last step of a test while the device is idle.
    pub fn encode(&mut self, test: &Test) -> Duration {
        let (phase, step) = self.steps(test).pop().expect("a step");
        self.backend.encode_time(phase, &step)
    }

    /// The number of dispatches in the last step of a test.
    pub fn dispatches(&self, test: &Test) -> usize {
        self.dispatches[test.kind.phase() as usize]
    }

    /// Runs a test `runs` times, after one run to warm up.
    pub fn measure(&mut self, test: &Test, runs: u32) -> Result<Measured> {
        self.run(test)?;
        let (mut rates, mut submit) = (Vec::new(), Vec::new());
        let tokens = u64::from(test.tokens) * u64::from(test.sequences);
        let (mut seconds, mut moved) = (0.0, 0);
        for _ in 0..runs {
            let (time, bytes) = self.run_with(test, |backend| submit.push(backend.submit_time()))?;
            rates.push(tokens as f64 / time.as_secs_f64());
            seconds += time.as_secs_f64();
            moved += bytes;
        }
        let n = rates.len() as f64;
        let tps_mean = rates.iter().sum::<f64>() / n;
        let variance = rates.iter().map(|r| (r - tps_mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let encode = (0..100).map(|_| self.encode(test)).collect();
        Ok(Measured {
            dispatches: self.dispatches(test),
            encode_us: median_us(encode),
            submit_us: median_us(submit),
            test: test.name(),
            tokens,
            tps_mean,
            tps_sd: variance.sqrt(),
            gb_s: moved as f64 / seconds / 1e9,
        })
    }

    /// Runs the last step of a test `runs` times, after one run to warm up. Returns where its time went, the
    /// largest part first.
    pub fn profile(&mut self, test: &Test, runs: u32) -> Result<Vec<Profiled>> {
        let (phase, step) = self.steps(test).pop().expect("a step");
        let mut seconds = vec![0.0; self.backend.plans().of(phase).passes.len()];
        self.backend.profile(phase, &step)?;
        for _ in 0..runs {
            for (total, time) in seconds.iter_mut().zip(self.backend.profile(phase, &step)?) {
                *total += time.as_secs_f64() / f64::from(runs);
            }
        }
        let whole: f64 = seconds.iter().sum();
        let load = step.load();
        // [passes, seconds, bytes, operations]
        let mut all: Vec<((&'static str, String), [f64; 4])> = Vec::new();
        for (pass, seconds) in self.backend.plans().of(phase).passes.iter().zip(&seconds) {
            let (what, cost) = ((pass.kernel.name(), pass.kernel.note()), pass.kernel.cost(&load));
            let more = [1.0, *seconds, cost.bytes as f64, cost.flops as f64];
            match all.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sums)) => (0..4).for_each(|i| sums[i] += more[i]),
                None => all.push((what, more)),
            }
        }
        all.sort_by(|a, b| b.1[1].total_cmp(&a.1[1]));
        // A pass without work in this step takes no time and has no rate.
        let rate = |what: f64, seconds: f64| if seconds > 0.0 { what / seconds / 1e9 } else { 0.0 };
        let profiled = |((kernel, note), [passes, seconds, bytes, flops]): (_, [f64; 4])| Profiled {
            kernel,
            note,
            passes: passes as usize,
            us: seconds * 1e6,
            share: seconds / whole,
            gb_s: rate(bytes, seconds),
            gflop_s: rate(flops, seconds),
        };
        Ok(all.into_iter().map(profiled).collect())
    }

    /// The steps of a run: a prompt in chunks, with the logits of its last token, or one token of each
    /// sequence at a time.
    fn steps(&self, test: &Test) -> Vec<(Phase, Step)> {
        let sizes = self.backend.plans().sizes;
        let stride = sizes.context.div_ceil(BLOCK);
        let tables: Vec<Vec<u32>> =
            (0..test.sequences).map(|s| (s * stride..(s + 1) * stride).collect()).collect();
        let step = |rows: Vec<Row>, outputs: Vec<u32>| Step {
            rows,
            outputs,
            tables: tables.clone(),
            ..Step::default()
        };
        let positions: Range<u32> = test.depth..test.depth + test.tokens;
        let mut steps = Vec::new();
        match test.kind {
            TestKind::Prompt => {
                for sequence in 0..test.sequences {
                    let all: Vec<u32> = positions.clone().collect();
                    for chunk in all.chunks(sizes.rows[Phase::Prefill as usize] as usize) {
                        let rows =
                            chunk.iter().map(|p| Row { token: p % 100, position: *p, sequence }).collect();
                        let is_last = chunk.last() == all.last();
                        let outputs = if is_last { vec![chunk.len() as u32 - 1] } else { Vec::new() };
                        steps.push((Phase::Prefill, step(rows, outputs)));
                    }
                }
            }
            TestKind::Generate => {
                let sequences: Vec<u32> = (0..test.sequences).collect();
                for position in positions {
                    for group in sequences.chunks(GROUP as usize) {
                        let token = if position == test.depth { 1 } else { SAMPLED };
                        let rows: Vec<_> = group
                            .iter()
                            .map(|sequence| Row { token, position, sequence: *sequence })
                            .collect();
                        let outputs = (0..rows.len() as u32).collect();
                        steps.push((Phase::Decode, step(rows, outputs)));
                    }
                }
            }
        }
        steps
    }
}

fn median_us(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    all.get(all.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}
