//! Turns sequences into steps: decides which tokens run next, and in which plan. Independent of the GPU.
//!
//! The result of a request depends on the request alone, bit for bit, whatever else runs at the same time.
//! Prompt tokens always run in the prefill plan, even a single one. Generated tokens always run in the decode
//! plan, even when they run again after a preemption. The order in which kernels sum depends neither on the
//! other rows of a step nor on how a prompt is cut into chunks. (Exception: `share_decoded`, see
//! [`Scheduler::new`].)

mod batch;
mod guesses;
mod sequence;
mod usage;

pub use batch::{Batch, Event, Happened, Outcome, Part, Reads};
pub use sequence::{FinishReason, Goal, NewSequence, SequenceId};
pub use usage::{Done, Usage};

use crate::{
    buffers::{BLOCK, Sizes},
    cache_blocks::{Blocks, Move},
    sampling::{Logprobs, NO_ID, Pick},
    step::{FEATURE, Row},
    workload::Phase,
};
use guesses::Costs;
use sequence::{Kind, Sequence};
use std::{collections::VecDeque, ops::Range, time::Duration};

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
    done: Done,
    /// How many tokens to decode before the next chunk of a prompt.
    decodes_due: usize,
    /// What decoding steps cost, by which guesses are judged.
    costs: Costs,
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
            done: Done::default(),
            decodes_due: 0,
            costs: Costs::new(sizes.rows[Phase::Decode as usize] as usize),
            sizes,
        }
    }

    /// Lets the host's memory keep the contents of so many cache blocks that are needed for something else.
    pub fn keep_blocks(&mut self, count: usize) {
        self.blocks.keep(count);
    }

    /// The cache's blocks, for who reads or writes what they hold.
    pub fn blocks(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    /// What must be done with the contents of cache blocks, in order, before the batch is submitted that
    /// [`Scheduler::schedule`] returned.
    pub fn moves(&mut self) -> Vec<Move> {
        self.blocks.moves()
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
        self.waiting.push_back(Sequence::new(id, new, self.sizes.context as usize));
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

    /// How busy it is.
    pub fn usage(&self) -> Usage {
        let blocks = self.sizes.blocks as usize;
        Usage {
            running: self.running.iter().flatten().count(),
            waiting: self.waiting.len(),
            blocks,
            blocks_in_use: blocks - self.blocks.available(),
            done: self.done,
        }
    }

    /// Gives free slots to waiting sequences and returns the events of that, which come before a step of
    /// these sequences does.
    pub fn start_waiting(&mut self) -> Vec<Event> {
        self.admit();
        std::mem::take(&mut self.events)
    }

    /// The next step to submit. `None` if there is nothing to run, or nothing until a step in flight is
    /// committed.
    ///
    /// Chunks of prompts alternate with decoding: between two chunks, each sequence that can decode gets one
    /// token.
    pub fn schedule(&mut self) -> Option<Batch> {
        let batch = loop {
            self.admit();
            for sequence in self.running.iter_mut().flatten() {
                sequence.find(&mut self.blocks, self.share_decoded);
            }
            let waiting = self.waiting.len();
            let batch = match self.decodes_due {
                0 => self.prefill().or_else(|| self.decode()),
                _ => self.decode().or_else(|| self.prefill()),
            };
            // If all that was chosen was preempted instead, there is room for others now.
            if batch.is_some() || self.waiting.len() == waiting {
                break batch?;
            }
        };
        self.done.steps += 1;
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
        if let Some(guess) = part.guess {
            // What is sampled after a guess counts if the guess is what came, as the last token so far.
            let at = part.tokens.start;
            if sequence.tokens.len() != at + 1 || sequence.tokens[at] != guess {
                return;
            }
            (sequence.computed, sequence.in_flight) = (at + 1, 1);
            self.done.right_guesses += 1;
        } else {
            sequence.guesses.in_flight = false;
        }
        let mut happened = Vec::new();
        if batch.phase == Phase::Prefill {
            happened.push(Happened::Read { tokens: part.tokens.end, cached: sequence.cached });
        }
        let picked = outcome.picked[part.sampled as usize];
        let is_lost = part.outputs > 0 && sequence.kind == Kind::Generate && picked.id == NO_ID;
        let finished = match sequence.kind {
            Kind::Hidden if part.tokens.end > sequence.outputs_from => {
                let width = outcome.hidden.len() / batch.step.rows.len();
                let before = sequence.outputs_from.saturating_sub(part.tokens.start);
                let rows = part.first_row + before..part.first_row + part.tokens.len();
                happened
                    .push(Happened::Hidden(outcome.hidden[rows.start * width..rows.end * width].to_vec()));
                sequence.gave_outputs(part.tokens.end)
            }
            _ if is_lost || part.outputs == 0 => None,
            Kind::Generate => {
                sequence.in_flight -= 1;
                if let Some(count) = sequence.logprobs {
                    let logits = logits_of(batch, outcome, outputs);
                    happened.push(Happened::Logprobs(Logprobs::new(logits, picked.id, count)));
                }
                happened.push(Happened::Token(picked.id));
                sequence.push(picked.id, picked.probability)
            }
            Kind::Score => {
                happened.push(Happened::Scores(outcome.scores[outputs].to_vec()));
                sequence.targets.drain(..part.outputs);
                sequence.gave_outputs(part.tokens.end)
            }
            Kind::Predict => {
                happened.push(Happened::Logits(logits_of(batch, outcome, outputs).to_vec()));
                sequence.gave_outputs(part.tokens.end)
            }
            Kind::Hidden => None,
        };
        happened.extend(is_lost.then_some(Happened::NotNumbers));
        happened.extend(finished.map(Happened::Finished));
        if self.share_decoded {
            sequence.name_blocks(&mut self.blocks, true);
        }
        if finished.is_none() && sequence.is_full() {
            sequence.shorten(&mut self.blocks);
        }
        let sequence = part.sequence;
        self.events.extend(happened.into_iter().map(|happened| Event { sequence, happened }));
        if is_lost || finished.is_some() {
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
            let Some(mut next) = self.waiting.pop_front() else { return };
            next.find(&mut self.blocks, self.share_decoded);
            let happened = Happened::Started { slot: slot as Slot, cached: next.cached };
            self.events.push(Event { sequence: next.id, happened });
            self.running[slot] = Some(next);
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
            // A step has a limited number of outputs.
            let count = shares[slot].min(sequence.prompt_left()).min(sequence.within(outputs));
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
        for (_, slot, count) in &chosen {
            if self.running[*slot].is_some() {
                self.take(&mut batch, *slot, *count);
            }
        }
        self.add_guesses(&mut batch, room.min(self.sizes.guesses as usize));
        self.filled(batch)
    }

    /// Adds at most `room` guesses to a decode step, as far as they pay.
    fn add_guesses(&mut self, batch: &mut Batch, mut room: usize) {
        if self.sizes.guesses == 0 {
            return;
        }
        let mut sampled = self.sizes.sequences;
        for number in 0..batch.parts.len() {
            let Part { slot, epoch, sequence: id, .. } = batch.parts[number].clone();
            let Some(sequence) = &mut self.running[slot as usize] else { continue };
            let guesses = sequence.guess(room).to_vec();
            let count = sequence.guesses.worth(&self.costs, batch.step.rows.len(), guesses.len());
            let room_before = room;
            // The token before them, which the step samples, has this index.
            let first = sequence.tokens.len();
            for (index, guess) in (first..).zip(guesses.into_iter().take(count)) {
                let has_room = sequence.blocks_missing(index + 1) == 0;
                // Nobody is preempted for a guess, nor kept waiting.
                if !has_room && !self.waiting.is_empty() {
                    break;
                }
                if !has_room {
                    let Some(block) = self.blocks.take() else { break };
                    sequence.blocks.push(block);
                }
                let row = batch.step.rows.len();
                batch.step.rows.push(Row { token: guess, position: index as u32, sequence: sampled });
                batch.step.outputs.push(row as u32);
                batch.targets.push(None);
                batch.parts.push(Part {
                    sequence: id,
                    epoch,
                    slot,
                    sampled,
                    guess: Some(guess),
                    first_row: row,
                    tokens: index..index + 1,
                    outputs: 1,
                });
                sequence.guesses.in_flight = true;
                sampled += 1;
                room -= 1;
            }
            self.done.drafts += u64::from(room < room_before);
            self.done.guesses += (room_before - room) as u64;
        }
    }

    /// Takes note of how long a decode step took.
    pub fn took(&mut self, batch: &Batch, time: Duration) {
        self.costs.observe(batch.step.rows.len(), time.as_secs_f32());
    }

    /// Adds the next `count` tokens of a sequence to a batch, unless the cache has no room for them. Returns
    /// the number of outputs that were added.
    fn take(&mut self, batch: &mut Batch, slot: usize, count: usize) -> usize {
        let start = self.at(slot).computed;
        if count == 0 || !self.make_room(slot, start + count) {
            return 0;
        }
        let (step, now) = (&mut batch.step, self.done.steps + 1);
        let first_row = step.rows.len();
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
                Kind::Generate => {
                    sequence.in_flight += 1;
                    batch.reads.logits |= sequence.logprobs.is_some();
                }
                Kind::Score => batch.reads.scores = true,
                Kind::Predict => batch.reads.logits = true,
                Kind::Hidden => (),
            }
        }
        let tokens = start..start + count;
        batch.reads.hidden |= sequence.kind == Kind::Hidden && tokens.end > sequence.outputs_from;
        if batch.phase == Phase::Prefill {
            sequence.name_blocks(&mut self.blocks, false);
        }
        batch.parts.push(Part {
            sequence: sequence.id,
            epoch: sequence.epoch,
            slot: slot as u32,
            sampled: slot as u32,
            guess: None,
            first_row,
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
        step.tables = vec![Vec::new(); self.sizes.slots() as usize];
        step.picks = vec![Pick::GREEDY; self.sizes.slots() as usize];
        step.adapters = vec![Vec::new(); self.sizes.slots() as usize];
        for part in &batch.parts {
            let slot = part.sampled as usize;
            let sequence = self.running[part.slot as usize].as_ref().expect("a sequence at work");
            step.tables[slot].clone_from(&sequence.blocks);
            step.adapters[slot].clone_from(&sequence.adapters);
            if part.outputs > 0 {
                // The token to sample is among the sequence's.
                step.picks[slot] = sequence.sampler.pick(&sequence.tokens, sequence.is_first());
            }
        }
        if batch.reads.scores {
            // An output without a target gets an arbitrary one.
            step.targets = batch.targets.iter().map(|target| target.unwrap_or(0)).collect();
        }
        Some(batch)
    }
}

/// The logits of some of a batch's outputs, `[outputs, vocab]`.
fn logits_of<'o>(batch: &Batch, outcome: &'o Outcome, outputs: Range<usize>) -> &'o [f32] {
    let width = outcome.logits.len() / batch.step.outputs.len();
    &outcome.logits[outputs.start * width..outputs.end * width]
}

#[cfg(test)]
mod tests;
