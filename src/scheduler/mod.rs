//! Turns sequences into steps: decides which tokens run next, and in which plan. Independent of the GPU.
//!
//! The result of a request depends on the request alone, bit for bit, whatever else runs at the same time.
//! Prompt tokens always run in the prefill plan, even a single one. Generated tokens always run in the decode
//! plan, even when they run again after a preemption. The order in which kernels sum depends neither on the
//! other rows of a step nor on how a prompt is cut into chunks. (Exception: `share_decoded`, see
//! [`Scheduler::new`].)

mod batch;
mod sequence;

pub use batch::{Batch, Event, Happened, Outcome, Part, Reads};
pub use sequence::{FinishReason, Goal, NewSequence, SequenceId};

use crate::{
    buffers::{BLOCK, Sizes},
    cache::Blocks,
    sampling::{NO_ID, Pick},
    step::{FEATURE, Row},
    workload::Phase,
};
use sequence::{Kind, Sequence};
use std::{collections::VecDeque, ops::Range};

/// The place of a running sequence: the index of its block table and of its sampled id.
pub type Slot = u32;

/// The sequences that run, and those that wait for a slot.
#[derive(Debug)]
pub struct Scheduler {
    sizes: Sizes,
    /// Whether sequences also share the cache blocks that decoding wrote.
    share_decoded: bool,
    blocks: Blocks,
    /// The running sequences, by slot.
    running: Vec<Option<Sequence>>,
    /// The waiting sequences, in the order of arrival.
    waiting: VecDeque<Sequence>,
    events: Vec<Event>,
    next_id: u64,
    steps: u64,
    /// How many tokens to decode before the next chunk of a prompt.
    decodes_due: usize,
}

impl Scheduler {
    /// A scheduler for plans of these sizes. With `share_decoded`, sequences also reuse keys and values that
    /// decoding wrote. Their last bits differ from those that the prefill plan would compute.
    ///
    /// # Panics
    /// If the cache cannot hold one whole context.
    pub fn new(sizes: Sizes, share_decoded: bool) -> Self {
        assert!(sizes.blocks * BLOCK >= sizes.context, "a cache for one whole context at least");
        Self {
            share_decoded,
            blocks: Blocks::new(sizes.blocks),
            running: (0..sizes.sequences).map(|_| None).collect(),
            waiting: VecDeque::new(),
            events: Vec::new(),
            next_id: 0,
            steps: 0,
            decodes_due: 0,
            sizes,
        }
    }

    /// Adds a sequence to the queue. It runs once there is a free slot and room in the cache.
    ///
    /// # Panics
    /// If the prompt is empty or longer than the context.
    pub fn add(&mut self, new: NewSequence) -> SequenceId {
        assert!(!new.tokens.is_empty(), "a first token");
        assert!(new.tokens.len() <= self.sizes.context as usize, "a prompt within the context");
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let mut sequence = Sequence::new(id, new);
        sequence.limit(self.sizes.context as usize);
        self.waiting.push_back(sequence);
        id
    }

    /// Ends a sequence, whether it runs or waits. Results of steps in flight for it are ignored.
    pub fn cancel(&mut self, id: SequenceId) {
        self.waiting.retain(|sequence| sequence.id != id);
        self.events.retain(|event| event.sequence != id);
        if let Some(slot) = self.slot_of(id) {
            self.remove(slot);
        }
    }

    /// Sends a running sequence back to the queue and frees its blocks, as happens when the cache is full.
    pub fn preempt(&mut self, id: SequenceId) {
        if let Some(slot) = self.slot_of(id) {
            self.put_back(slot);
        }
    }

    /// Ends all sequences and discards the contents of the cache. Used after the device has failed.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.events.clear();
        (0..self.running.len()).for_each(|slot| self.remove(slot));
        self.blocks.forget();
    }

    /// Whether the sequence runs or waits.
    pub fn has(&self, id: SequenceId) -> bool {
        self.slot_of(id).is_some() || self.waiting.iter().any(|sequence| sequence.id == id)
    }

    /// Whether no sequence runs or waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.iter().all(Option::is_none)
    }

    /// The next step to submit. `None` if there is nothing to run, or nothing until a step in flight is
    /// committed.
    ///
    /// Chunks of prompts alternate with decoding: between two chunks, each sequence that can decode gets one
    /// token.
    pub fn schedule(&mut self) -> Option<Batch> {
        self.admit();
        let batch = match self.decodes_due {
            0 => self.prefill().or_else(|| self.decode()),
            _ => self.decode().or_else(|| self.prefill()),
        }?;
        self.steps += 1;
        match batch.phase {
            Phase::Prefill => {
                self.decodes_due = self.running.iter().flatten().filter(|s| s.can_decode()).count();
            }
            Phase::Decode => self.decodes_due = self.decodes_due.saturating_sub(batch.parts.len()),
        }
        Some(batch)
    }

    /// Takes the results of a batch and returns the events that follow. Batches must be committed in the
    /// order in which [`Scheduler::schedule`] returned them.
    pub fn commit(&mut self, batch: &Batch, outcome: &Outcome) -> Vec<Event> {
        let mut first_output = 0;
        for part in &batch.parts {
            let outputs = first_output..first_output + part.outputs;
            first_output = outputs.end;
            self.commit_part(batch, part, outputs, outcome);
        }
        std::mem::take(&mut self.events)
    }

    fn commit_part(&mut self, batch: &Batch, part: &Part, outputs: Range<usize>, outcome: &Outcome) {
        // A sequence that was cancelled or preempted in the meantime ignores the results.
        let of_part = |s: &&mut Sequence| s.id == part.sequence && s.epoch == part.epoch;
        let Some(sequence) = self.running[part.slot as usize].as_mut().filter(of_part) else { return };
        let mut happened = Vec::new();
        if batch.phase == Phase::Prefill {
            happened.push(Happened::Read { tokens: part.tokens.end, cached: sequence.cached });
        }
        let mut is_over = false;
        if part.outputs > 0 {
            match sequence.kind {
                Kind::Generate => {
                    let picked = outcome.picked[part.slot as usize];
                    sequence.in_flight -= 1;
                    if picked.id == NO_ID {
                        happened.push(Happened::NotNumbers);
                        is_over = true;
                    } else {
                        happened.push(Happened::Token(picked.id));
                        let reason = sequence.push(picked.id, picked.probability);
                        happened.extend(reason.map(Happened::Finished));
                        is_over = reason.is_some();
                    }
                }
                Kind::Score => {
                    happened.push(Happened::Scores(outcome.scores[outputs].to_vec()));
                    sequence.targets.drain(..part.outputs);
                    is_over = sequence.gave_outputs(part.tokens.end);
                }
                Kind::Predict => {
                    let width = outcome.logits.len() / batch.step.outputs.len();
                    let logits = &outcome.logits[outputs.start * width..outputs.end * width];
                    happened.push(Happened::Logits(logits.to_vec()));
                    is_over = sequence.gave_outputs(part.tokens.end);
                }
            }
        }
        if self.share_decoded {
            sequence.name_blocks(&mut self.blocks, true);
        }
        if is_over && !matches!(sequence.kind, Kind::Generate) {
            happened.push(Happened::Finished(FinishReason::Length));
        }
        let sequence = part.sequence;
        self.events.extend(happened.into_iter().map(|happened| Event { sequence, happened }));
        if is_over {
            self.remove(part.slot as usize);
        }
    }
    fn slot_of(&self, id: SequenceId) -> Option<usize> {
        self.running.iter().position(|running| running.as_ref().is_some_and(|sequence| sequence.id == id))
    }

    fn at(&mut self, slot: usize) -> &mut Sequence {
        self.running[slot].as_mut().expect("a sequence at work")
    }

    fn remove(&mut self, slot: usize) {
        if let Some(sequence) = self.running[slot].take() {
            self.blocks.release(&sequence.blocks);
        }
    }

    fn put_back(&mut self, slot: usize) {
        let Some(mut sequence) = self.running[slot].take() else { return };
        sequence.preempt(&mut self.blocks);
        self.events.push(Event { sequence: sequence.id, happened: Happened::Preempted });
        let before = self.waiting.iter().position(|other| other.id > sequence.id);
        self.waiting.insert(before.unwrap_or(self.waiting.len()), sequence);
    }

    /// Gives free slots to waiting sequences, in the order of arrival, as long as the cache has room for all
    /// tokens that the running sequences have now.
    fn admit(&mut self) {
        while let (Some(next), Some(slot)) =
            (self.waiting.front(), self.running.iter().position(Option::is_none))
        {
            let at_work =
                self.running.iter().flatten().map(|sequence| sequence.blocks_missing(sequence.len()));
            let needed = at_work.sum::<usize>() + next.blocks_missing(next.len());
            if needed > self.blocks.available() {
                return;
            }
            self.running[slot] = self.waiting.pop_front();
        }
    }

    /// Allocates blocks for the first `tokens` tokens of a sequence. While none is free, the running sequence
    /// that arrived last is preempted. Returns false if that is the sequence itself.
    fn make_room(&mut self, slot: usize, tokens: usize) -> bool {
        while self.at(slot).blocks_missing(tokens) > 0 {
            match self.blocks.take() {
                Some(block) => self.at(slot).blocks.push(block),
                None => {
                    let youngest = self.slots_by(|sequence| sequence.id).pop().expect("a sequence at work");
                    self.put_back(youngest);
                    if youngest == slot {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The slots of the running sequences, sorted by a key.
    fn slots_by<K: Ord>(&self, key: impl Fn(&Sequence) -> K) -> Vec<usize> {
        let running = self.running.iter().enumerate();
        let mut slots: Vec<_> = running.filter_map(|(slot, s)| Some((key(s.as_ref()?), slot))).collect();
        slots.sort();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The next chunk of tokens from the prompts that are not fully read.
    fn prefill(&mut self) -> Option<Batch> {
        for sequence in self.running.iter_mut().flatten() {
            sequence.find(&mut self.blocks, self.share_decoded);
        }
        let shares = self.prefill_shares();
        let mut batch = Batch::new(Phase::Prefill);
        let mut outputs = self.sizes.outputs as usize;
        // The oldest first: making room for a sequence preempts later arrivals, which are not in the batch
        // yet.
        for slot in self.slots_by(|sequence| sequence.id) {
            // Search the cache again: an earlier sequence in this batch may compute the same blocks. Each
            // layer writes them before any row reads them.
            let Some(sequence) = &mut self.running[slot] else { continue };
            sequence.find(&mut self.blocks, self.share_decoded);
            // A step has a limited number of outputs. Tokens before the first wanted output need none.
            let before_outputs = sequence.outputs_from.saturating_sub(sequence.computed);
            let count = shares[slot].min(sequence.prompt_left()).min(before_outputs + outputs);
            outputs -= self.take(&mut batch, slot, count);
        }
        self.filled(batch)
    }

    /// How many prompt tokens of each slot run next. The oldest sequence with unread prompt tokens gets at
    /// least half a chunk if it needs that many. The rest goes to the sequences with the fewest tokens left
    /// to read. So a short prompt does not wait for a long one, and a long one does not wait for many short
    /// ones.
    fn prefill_shares(&self) -> Vec<usize> {
        let mut room = self.sizes.rows[Phase::Prefill as usize] as usize;
        let mut shares = vec![0; self.running.len()];
        let left = |slot: usize| self.running[slot].as_ref().map_or(0, Sequence::prompt_left);
        let oldest = self.slots_by(|sequence| sequence.id).into_iter().find(|slot| left(*slot) > 0);
        if let Some(oldest) = oldest {
            shares[oldest] = left(oldest).min(room.div_ceil(2));
            room -= shares[oldest];
        }
        for slot in self.slots_by(|sequence| (sequence.prompt_left(), sequence.id)) {
            let more = (left(slot) - shares[slot]).min(room);
            shares[slot] += more;
            room -= more;
        }
        shares
    }

    /// The next token of the sequences whose last step is longest ago.
    fn decode(&mut self) -> Option<Batch> {
        let mut room = self.sizes.rows[Phase::Decode as usize].min(self.sizes.outputs) as usize;
        let mut chosen = Vec::new();
        for slot in self.slots_by(|sequence| (sequence.last_step, sequence.id)) {
            let sequence = self.at(slot);
            if room > 0 && sequence.can_decode() {
                // One token, or several if a preempted sequence recomputes tokens that it already has.
                let count = (sequence.len() - sequence.computed).min(room);
                room -= count;
                chosen.push((sequence.id, slot, count));
            }
        }
        chosen.sort();
        let mut batch = Batch::new(Phase::Decode);
        for (_, slot, count) in chosen {
            if self.running[slot].is_some() {
                self.take(&mut batch, slot, count);
            }
        }
        self.filled(batch)
    }

    /// Adds the next `count` tokens of a sequence to a batch, unless the cache has no room for them. Returns
    /// the number of outputs that were added.
    fn take(&mut self, batch: &mut Batch, slot: usize, count: usize) -> usize {
        let start = self.at(slot).computed;
        if count == 0 || !self.make_room(slot, start + count) {
            return 0;
        }
        let (step, now) = (&mut batch.step, self.steps + 1);
        let sequence = self.running[slot].as_mut().expect("a sequence at work");
        let mut outputs = 0;
        for index in start..start + count {
            let row = step.rows.len();
            if sequence.wants(index) {
                step.outputs.push(row as u32);
                batch.targets.push(sequence.target(index));
                outputs += 1;
            }
            let mut token = sequence.token(index);
            if let Some((features, part)) = sequence.image_at(index) {
                token = FEATURE;
                batch.images.push((row, features.clone(), part));
            }
            step.rows.push(Row { token, position: index as u32, sequence: slot as u32 });
        }
        (sequence.computed, sequence.last_step) = (start + count, now);
        if outputs > 0 {
            match sequence.kind {
                Kind::Generate => sequence.in_flight += 1,
                Kind::Score => batch.reads.scores = true,
                Kind::Predict => batch.reads.logits = true,
            }
        }
        if batch.phase == Phase::Prefill {
            sequence.name_blocks(&mut self.blocks, false);
        }
        let tokens = start..start + count;
        batch.parts.push(Part {
            sequence: sequence.id,
            epoch: sequence.epoch,
            slot: slot as u32,
            tokens,
            outputs,
        });
        outputs
    }

    /// Completes a batch with the block tables, the sampling settings and the targets. `None` if it has no
    /// rows.
    fn filled(&self, mut batch: Batch) -> Option<Batch> {
        if batch.step.rows.is_empty() {
            return None;
        }
        let step = &mut batch.step;
        let blocks = |sequence: &Option<Sequence>| sequence.as_ref().map_or(Vec::new(), |s| s.blocks.clone());
        step.tables = self.running.iter().map(blocks).collect();
        step.picks = vec![Pick::GREEDY; self.running.len()];
        for part in batch.parts.iter().filter(|part| part.outputs > 0) {
            let sequence = self.running[part.slot as usize].as_ref().expect("a sequence at work");
            step.picks[part.slot as usize] = sequence.sampler.pick(&sequence.tokens);
        }
        if batch.reads.scores {
            // An output without a target gets an arbitrary one.
            step.targets = batch.targets.iter().map(|target| target.unwrap_or(0)).collect();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampling::{Penalties, Picked, Sampling},
        step::SAMPLED,
    };

    fn scheduler(rows: [u32; 2], sequences: u32, context: u32, blocks: u32) -> Scheduler {
        Scheduler::new(Sizes { rows, outputs: rows[1], sequences, context, blocks }, false)
    }

    fn generate(tokens: Range<u32>, max_tokens: usize) -> NewSequence {
        let goal = Goal::Generate { sampling: Sampling::GREEDY, max_tokens, ends: Vec::new() };
        NewSequence { tokens: tokens.collect(), images: Vec::new(), goal }
    }

    /// The results of a device that samples the token `id` for every sequence.
    fn outcome(scheduler: &Scheduler, id: u32) -> Outcome {
        let picked = vec![Picked { id, probability: 1.0 }; scheduler.running.len()];
        Outcome { picked, ..Outcome::default() }
    }

    /// Every prompt token runs once, in order, within the limits of a step. Exactly the wanted outputs come
    /// out.
    #[test]
    fn prompts_run_in_chunks_and_only_wanted_outputs_come_out() {
        let mut scheduler = scheduler([10, 4], 3, 96, 12);
        let prompts = [0..27, 100..104, 200..233];
        let from = [26, 0, 30];
        let mut ids = Vec::new();
        for (prompt, from) in prompts.iter().zip(from) {
            let goal = Goal::Predict { from };
            ids.push(scheduler.add(NewSequence { goal, ..generate(prompt.clone(), 1) }));
        }
        let (mut seen, mut outputs) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        while let Some(batch) = scheduler.schedule() {
            assert!(batch.phase == Phase::Prefill && batch.step.rows.len() <= 10 && !batch.reads.scores);
            for row in &batch.step.rows {
                assert_eq!(row.position as usize, seen[row.sequence as usize].len());
                seen[row.sequence as usize].push(row.token);
            }
            let logits = batch.step.outputs.iter().map(|row| batch.step.rows[*row as usize].token as f32);
            let outcome = Outcome { logits: logits.collect(), ..outcome(&scheduler, 0) };
            assert_eq!(batch.reads.allow_more(), outcome.logits.is_empty());
            assert!(outcome.logits.len() <= 4);
            for event in scheduler.commit(&batch, &outcome) {
                let slot = ids.iter().position(|id| *id == event.sequence).expect("one of them");
                match event.happened {
                    Happened::Logits(logits) => outputs[slot].extend(logits),
                    Happened::Finished(_) => {
                        assert_eq!(outputs[slot].len(), prompts[slot].len() - from[slot]);
                    }
                    _ => (),
                }
            }
        }
        assert_eq!(seen, prompts.clone().map(Vec::from_iter));
        let expected = prompts.iter().zip(from).map(|(prompt, from)| prompt.clone().skip(from));
        let expected: Vec<Vec<f32>> = expected.map(|ids| ids.map(|id| id as f32).collect()).collect();
        assert_eq!(outputs, expected);
        assert!(scheduler.is_idle());
    }

    /// A short prompt is read within two chunks although a long one came first. Meanwhile the long prompt
    /// advances, and so do all answers.
    #[test]
    fn a_long_prompt_stops_nobody() {
        let mut scheduler = scheduler([128, 8], 32, 8192, 512);
        let answers: Vec<_> = (0..20).map(|i| scheduler.add(generate(i..i + 3, 1000))).collect();
        let step = |scheduler: &mut Scheduler| {
            let batch = scheduler.schedule().expect("work");
            let outcome = outcome(scheduler, 7);
            (scheduler.commit(&batch, &outcome), batch)
        };
        (0..10).for_each(|_| drop(step(&mut scheduler)));
        let long = scheduler.add(generate(1000..5000, 1));
        while step(&mut scheduler).1.parts[0].sequence != long {}
        let short = scheduler.add(generate(6000..6100, 1));
        let (mut chunks, mut read, mut told) = (0, 0, std::collections::HashMap::new());
        loop {
            let (events, batch) = step(&mut scheduler);
            chunks += usize::from(batch.phase == Phase::Prefill);
            for Event { sequence, happened } in events {
                match happened {
                    Happened::Token(_) => *told.entry(sequence).or_insert(0) += 1,
                    Happened::Read { tokens, .. } if sequence == long => read = tokens,
                    _ => (),
                }
            }
            if told.contains_key(&short) {
                break;
            }
        }
        assert!(chunks <= 2, "{chunks} chunks");
        assert!((64..4000).contains(&read), "the long one went on: {read}");
        // In eight more steps each of the twenty gets a token, although a step decodes at most eight.
        let before = told.clone();
        (0..8).for_each(|_| {
            step(&mut scheduler).0.into_iter().for_each(|event| {
                if let Happened::Token(_) = event.happened {
                    *told.entry(event.sequence).or_insert(0) += 1;
                }
            });
        });
        for id in &answers {
            assert!(told[id] > before.get(id).copied().unwrap_or(0), "{id:?} starves");
        }
    }

    /// Steps are scheduled before the host knows the tokens of earlier ones, unless sampling depends on
    /// these.
    #[test]
    fn steps_run_ahead_unless_a_sampler_looks_back() {
        let mut scheduler = scheduler([10, 4], 2, 96, 6);
        let penalties = Penalties { repetition: 1.5, ..Penalties::NONE };
        let goal = Goal::Generate {
            sampling: Sampling { penalties, ..Sampling::GREEDY },
            max_tokens: 5,
            ends: vec![9],
        };
        let free = scheduler.add(generate(5..7, 3));
        let bound = scheduler.add(NewSequence { goal, ..generate(5..7, 1) });
        let batches: Vec<_> = std::iter::from_fn(|| scheduler.schedule()).collect();
        let rows: Vec<_> = batches.iter().map(|batch| &batch.step.rows).collect();
        assert_eq!(rows.iter().map(|rows| rows.len()).collect::<Vec<_>>(), [4, 1, 1]);
        assert_eq!(rows[1][0], Row { token: SAMPLED, position: 2, sequence: 0 });
        assert_eq!(rows[2][0], Row { token: SAMPLED, position: 3, sequence: 0 });
        let outcome = outcome(&scheduler, 8);
        let mut events: Vec<_> = batches.iter().flat_map(|batch| scheduler.commit(batch, &outcome)).collect();
        assert!(
            events.contains(&Event { sequence: free, happened: Happened::Finished(FinishReason::Length) })
        );
        let batch = scheduler.schedule().expect("the one that waited");
        assert_eq!(batch.step.rows, [Row { token: 8, position: 2, sequence: 1 }]);
        assert_eq!(batch.step.picks[1].adjusted.len(), 3, "5, 6 and 8 were there");
        let ended = Outcome { picked: vec![Picked { id: 9, probability: 1.0 }; 2], ..Outcome::default() };
        events = scheduler.commit(&batch, &ended);
        assert_eq!(events[1], Event { sequence: bound, happened: Happened::Finished(FinishReason::Stop) });
        assert!(scheduler.is_idle() && scheduler.blocks.available() == 6);
    }

    /// Results in flight for a sequence that was cancelled or preempted are ignored, even if another sequence
    /// now has its slot.
    #[test]
    fn what_is_in_flight_for_those_who_left_is_ignored() {
        let mut scheduler = scheduler([10, 4], 1, 64, 2);
        let gone = scheduler.add(generate(0..4, 5));
        let batch = scheduler.schedule().expect("a prompt");
        scheduler.cancel(gone);
        let other = scheduler.add(generate(10..14, 5));
        let next = scheduler.schedule().expect("the other's prompt");
        let outcome = outcome(&scheduler, 3);
        assert_eq!(scheduler.commit(&batch, &outcome), []);
        scheduler.preempt(other);
        let again = scheduler.schedule().expect("once more");
        let events = scheduler.commit(&next, &outcome);
        assert_eq!(events, [Event { sequence: other, happened: Happened::Preempted }]);
        let events = scheduler.commit(&again, &outcome);
        assert_eq!(events[1], Event { sequence: other, happened: Happened::Token(3) });
        scheduler.clear();
        assert!(scheduler.is_idle() && !scheduler.has(other));
    }

    /// When the cache is full, the sequence that arrived last is preempted. It continues when there is room.
    #[test]
    fn the_last_that_came_gives_way() {
        let mut scheduler = scheduler([64, 8], 2, 96, 4);
        let [first, second] = [0, 500].map(|start| scheduler.add(generate(start..start + 30, 60)));
        let mut order = Vec::new();
        let mut tokens = [0, 0];
        while let Some(batch) = scheduler.schedule() {
            let outcome = outcome(&scheduler, 3);
            for Event { sequence, happened } in scheduler.commit(&batch, &outcome) {
                match happened {
                    Happened::Token(_) => tokens[usize::from(sequence == second)] += 1,
                    Happened::Preempted => order.push((sequence, "preempted")),
                    Happened::Finished(_) => order.push((sequence, "finished")),
                    _ => (),
                }
            }
        }
        assert_eq!(order, [(second, "preempted"), (first, "finished"), (second, "finished")]);
        assert_eq!((tokens, scheduler.blocks.available()), ([60, 60], 4));
    }
}
